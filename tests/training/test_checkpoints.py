"""What a run has written stays until what replaces it is there."""

import os

import pytest
import torch

from napo.training import checkpoints
from napo.training.records import Records, read_records


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def draft(folder, names):
    path = checkpoints.draft(folder)
    for name in names:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("new")
    return path


@pytest.mark.parametrize("there", [(), ("weights", "old/config"), ("weights", "deep/tokens")])
def test_final_weights_settle_without_the_files_of_before(tmp_path, there):
    final = tmp_path / "model"
    for name in there:
        (final / name).parent.mkdir(parents=True, exist_ok=True)
        (final / name).write_text("old")
    checkpoints.install(draft(final, ("weights", "deep/tokens")), final)
    assert files(tmp_path) == {"model/weights": "new", "model/deep/tokens": "new"}


def test_a_model_killed_while_it_is_replaced_still_has_all_its_files(tmp_path, monkeypatch):
    final, names = tmp_path / "model", ("config", "tokens", "weights")
    checkpoints.install(draft(final, names), final)
    replace, moved = os.replace, []

    def killed_at_the_second(source, target):
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    path = draft(final, names)
    monkeypatch.setattr(os, "replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.install(path, final)
    assert sorted(files(final)) == list(names)


def recorded(records, step, value):
    records.add(step, [f"row-{step}"], {"loss": torch.tensor(value)})


def test_a_resumed_run_replaces_later_records_part_by_part(tmp_path):
    first = Records(tmp_path / "records")
    for step in range(6):
        recorded(first, step, float(step))
        if step in (1, 3, 5):
            first.flush(step + 1)
    whole = {name: (tmp_path / "records" / name).read_bytes() for name in os.listdir(first.folder)}
    assert sorted(whole) == ["000002.parquet", "000004.parquet", "000006.parquet"]

    resumed = Records(tmp_path / "records")
    resumed.restart(2)  # killed between a part and its checkpoint
    assert sorted(os.listdir(resumed.folder)) == sorted(whole)
    for step in (2, 3):
        recorded(resumed, step, float(step))
    resumed.flush(4)
    assert {n: (resumed.folder / n).read_bytes() for n in os.listdir(resumed.folder)} == whole

    shorter = Records(tmp_path / "records")
    shorter.restart(0)  # another run: saved less often, ended earlier
    for step in range(5):
        recorded(shorter, step, 0.0)
    shorter.flush(5, last=True)
    found = read_records(tmp_path)
    assert found["step"].tolist() == list(range(5)) and not found["loss"].any()

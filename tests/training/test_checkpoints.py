"""Checkpoints and final weights stay until their replacement is complete."""

import os

import pytest

from napo.errors import NapoError
from napo.training import checkpoints

RUN = {"seed": 0, "learning_rate": 0.1}


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def drafted(folder, names):
    path = checkpoints.draft(folder)
    for name in names:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("new")
    return path


def sealed(parent, step):
    folder = parent / f"checkpoint-{step}"
    checkpoints.seal(drafted(folder, ["weights", "optimizer.pt"]), folder, RUN)
    return folder


@pytest.mark.parametrize("old", [(), ("weights", "old/config"), ("weights", "deep/tokens")])
def test_final_weights_replace_all_files_of_an_earlier_model(tmp_path, old):
    final = tmp_path / "model"
    for name in old:
        (final / name).parent.mkdir(parents=True, exist_ok=True)
        (final / name).write_text("old")
    checkpoints.install(drafted(final, ("weights", "deep/tokens")), final)
    assert contents(tmp_path) == {"model/weights": "new", "model/deep/tokens": "new"}


def test_a_model_killed_while_it_is_replaced_keeps_all_its_files(tmp_path, monkeypatch):
    final, names = tmp_path / "model", ("config", "tokens", "weights")
    checkpoints.install(drafted(final, names), final)
    replace, moved = os.replace, []

    def killed_at_the_second(source, target):
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    path = drafted(final, names)
    monkeypatch.setattr(os, "replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.install(path, final)
    assert sorted(contents(final)) == list(names)


def test_a_new_checkpoint_replaces_the_others(tmp_path):
    sealed(tmp_path, 2)
    checkpoints.draft(tmp_path / "checkpoint-3")
    sealed(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_the_latest_checkpoint_is_the_complete_one_of_the_highest_step(tmp_path):
    assert checkpoints.latest(tmp_path, RUN) is None
    last = sealed(tmp_path, 10)
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-11").mkdir()  # a kill left it without a manifest
    assert checkpoints.latest(tmp_path, RUN) == last


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("optimizer.pt", "ne", "optimizer.pt is missing or damaged"),
        ("optimizer.pt", None, "optimizer.pt is missing or damaged"),
        (checkpoints.MANIFEST, "[]", "checkpoint.json is damaged"),
        (checkpoints.MANIFEST, None, "is not a complete checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, name, content, message):
    folder = sealed(tmp_path, 2)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(NapoError, match=message):
        checkpoints.require(folder, RUN)


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path):
    folder = sealed(tmp_path, 2)
    with pytest.raises(NapoError, match=r"belongs to another run \(learning_rate, tune differ\)"):
        checkpoints.require(folder, {"seed": 0, "learning_rate": 0.2, "tune": "full"})

"""Records of a resumed run replace those of the interrupted one, file by file."""

import pytest
import torch

from napo.errors import NapoError
from napo.training.records import Records, read_records


def record(records, steps, value=None):
    for step in steps:
        records.add(step, [f"row-{step}"], {"loss": torch.tensor(float(value or step))})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def written(tmp_path):
    """Records of steps 0 to 5, in three files."""
    records = Records(tmp_path / "records")
    for first in (0, 2, 4):
        record(records, (first, first + 1))
        records.flush(first + 2)
    return records.folder


def test_a_resumed_run_writes_the_same_files_and_removes_none_early(written):
    before = contents(written)
    assert sorted(before) == ["000002.parquet", "000004.parquet", "000006.parquet"]
    resumed = Records(written)
    resumed.restart(2)  # the kill came between a file of records and its checkpoint
    record(resumed, (2, 3))
    resumed.flush(4)
    assert contents(written) == before


def test_a_shorter_run_leaves_no_records_of_the_longer_one(written):
    shorter = Records(written)
    record(shorter, range(5), value=9)
    shorter.flush(5, last=True)
    records = read_records(written.parent)
    assert records["step"].tolist() == list(range(5)) and records["loss"].eq(9).all()


def test_scalars_are_repeated_for_each_row(tmp_path):
    records = Records(tmp_path / "records")
    records.add(0, ["a", "b"], {"loss": torch.tensor([1.0, 2.0]), "q": torch.tensor(0.5)})
    records.flush(1)
    table = read_records(tmp_path)
    assert table.to_dict("list") == {
        "step": [0, 0], "id": ["a", "b"], "loss": [1.0, 2.0], "q": [0.5, 0.5]
    }  # fmt: skip


def test_a_run_without_records_names_the_notebook(tmp_path):
    with pytest.raises(NapoError, match=r"holds no records; run notebooks/05_train"):
        read_records(tmp_path)

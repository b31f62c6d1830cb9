"""A stage in several processes gives the same files as in one, and one error."""

import os

import pytest

from napo import stages
from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.stages import launch, ranks
from napo.stages.session import Session
from napo.workspace.files import read_json
from napo.workspace.folders import Workspace

SMALL = {
    "data": {"count": 20, "shard_rows": 6},
    "training": {"micro_batch_size": 4, "batch_size": 8},
}


def session(root, processes=1):
    profile = load_profile("smoke")
    changes = {**SMALL, "launch": {"processes": processes}}
    sections = {
        name: getattr(profile, name).model_copy(update=values) for name, values in changes.items()
    }
    return Session(profile.model_copy(update=sections), Workspace.open(str(root), "smoke"))


@pytest.fixture
def gpus(monkeypatch):
    """Set the number of visible GPUs."""

    def visible(count):
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)

    return visible


def give_up(session, why):
    if ranks.worker()[0] == 1:
        raise NapoError(f"Row 7 is bad: {why}.")


def crash(session):
    if ranks.worker()[0] == 1:
        raise ValueError("no such layer\nin this model")


def vanish(session):
    if ranks.worker()[0] == 1:
        os._exit(3)


def test_more_processes_than_gpus_are_refused(tmp_path, gpus):
    gpus(1)
    with pytest.raises(NapoError, match=r"launch.processes is 2, and 1 GPUs are visible"):
        launch.processes(session(tmp_path, 2))
    assert launch.processes(session(tmp_path, 0)) == 1


def test_jobs_that_need_one_gpu_get_different_gpus(tmp_path, gpus):
    gpus(2)
    opened = session(tmp_path)
    with launch.one_gpu(opened) as first, launch.one_gpu(opened) as second:
        assert {first, second} == {"cuda:0", "cuda:1"}
    with launch.one_gpu(opened) as again:
        assert again == "cuda:0"


def test_a_job_gets_no_device_where_there_is_one_gpu(tmp_path, gpus):
    gpus(1)
    with launch.one_gpu(session(tmp_path)) as device:
        assert device is None


def test_accelerate_starts_processes_on_gpus_with_the_strategys_file(tmp_path, gpus):
    gpus(8)
    call = launch.command(tmp_path / "spec.json", 8, "fsdp2")
    assert call[call.index("--num_processes") + 1] == "8"
    assert call[call.index("--config_file") + 1].endswith("fsdp2.yaml")
    assert call[-3:] == ["-m", "napo.stages.launch", str(tmp_path / "spec.json")]


def test_a_strategy_that_needs_deepspeed_is_refused_without_it(tmp_path, gpus, monkeypatch):
    gpus(8)
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(NapoError, match="zero2, which needs DeepSpeed"):
        launch.command(tmp_path / "spec.json", 8, "zero2")


@pytest.mark.long
def test_two_processes_build_score_and_train_as_one_does(tmp_path):
    outputs = []
    for processes in (1, 2):
        opened = session(tmp_path / str(processes), processes)
        stages.make_rows(opened)
        rows, reference = stages.build_rows(opened), stages.score_reference(opened)
        assert [path.name for path in sorted(rows.glob("*.parquet"))][-1] == "part-00003.parquet"
        run = stages.train(opened, "A1", 0)
        assert read_json(run / "training.json")["q_batch"] == 4 * processes
        records = stages.records(opened, "A1", "0")
        assert len(records) == 16 and records["id"].is_unique
        outputs.append((rows, reference, records))
    for one, two in list(zip(*outputs, strict=True))[:2]:
        files = sorted(path.name for path in one.glob("*.parquet"))
        assert files == sorted(path.name for path in two.glob("*.parquet"))
        assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    # q averages over more rows (documented), so only the first step is the same.
    first = [
        records[records["step"] == 0].set_index("id")["chosen_logp"].sort_index()
        for *_, records in outputs
    ]
    assert (first[0] - first[1]).abs().max() < 1e-4


@pytest.mark.long
def test_the_error_of_one_process_is_the_stages_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(__file__)))
    opened = session(tmp_path, 2)
    with pytest.raises(NapoError, match=r"^Row 7 is bad: cut short\.$"):
        launch.shared(opened, give_up, why="cut short")
    with pytest.raises(NapoError, match=r"ended early: ValueError: no such layer in this model$"):
        launch.shared(opened, crash)
    with pytest.raises(NapoError, match=r"ended early: exit code 3$"):
        launch.shared(opened, vanish)

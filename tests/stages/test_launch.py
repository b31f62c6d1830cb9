"""A stage in several processes: the same files as in one, and its error as one sentence."""

import os

import pytest

from napo import stages
from napo.config.profile import load_profile
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.stages import launch, ranks
from napo.stages.session import Session, open_session
from napo.workspace.files import read_json
from napo.workspace.folders import Workspace

SMALL = {
    "data": {"count": 20, "shard_rows": 6},
    "training": {"micro_batch_size": 4, "batch_size": 8},
}


def session(root, processes=1, **changes):
    profile = load_profile("smoke")
    parts = {**SMALL, **changes, "launch": {"processes": processes}}
    made = {
        name: getattr(profile, name).model_copy(update=values) for name, values in parts.items()
    }
    return Session(profile.model_copy(update=made), Workspace.open(str(root), "smoke"))


def give_up(session, why):
    if ranks.worker()[0] == 1:
        raise NapoError(f"Row 7 is bad: {why}.")


def vanish(session):
    if ranks.worker()[0] == 1:
        os._exit(3)


def test_a_single_process_works_here_and_starts_nothing(tmp_path):
    seen = []
    launch.shared(session(tmp_path), lambda session, word: seen.append(word), word="here")
    assert seen == ["here"] and ranks.worker() == (0, 1)


def test_more_gpus_than_there_are_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(NapoError, match=r"launch.processes is 2, and 1 GPUs are visible"):
        launch.processes(session(tmp_path, 2))
    assert launch.processes(session(tmp_path, 0)) == 1


def test_jobs_of_one_gpu_take_different_ones(tmp_path, monkeypatch):
    made = session(tmp_path)
    with launch.one_gpu(made) as alone:
        assert alone is None
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with launch.one_gpu(made) as first, launch.one_gpu(made) as second:
        assert {first, second} == {"cuda:0", "cuda:1"}
    with launch.one_gpu(made) as again:
        assert again == "cuda:0"


def test_gpus_are_launched_by_accelerate_with_the_strategys_file(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    call = launch.command(tmp_path / "spec.json", 8, "fsdp2")
    assert call[call.index("--num_processes") + 1] == "8"
    assert call[call.index("--config_file") + 1].endswith("fsdp2.yaml")
    assert call[-3:] == ["-m", "napo.stages.launch", str(tmp_path / "spec.json")]
    with pytest.raises(NapoError, match="needs DeepSpeed"):
        launch.command(tmp_path / "spec.json", 8, "zero2")


@pytest.mark.long
def test_two_processes_build_score_and_train_as_one_does(tmp_path):
    both = []
    for processes in (1, 2):
        made = session(tmp_path / str(processes), processes)
        stages.make_rows(made)
        rows, reference = stages.build_rows(made), stages.score_reference(made)
        assert [path.name for path in sorted(rows.glob("*.parquet"))][-1] == "part-00003.parquet"
        run = stages.train(made, "A1", 0)
        assert read_json(run / "training.json")["q_batch"] == 4 * processes
        records = stages.records(made, "A1", "0")
        assert len(records) == 16 and records["id"].is_unique
        both.append((rows, reference, records))
    for folder in (0, 1):
        one, two = (made[folder] for made in both)
        files = sorted(path.name for path in one.glob("*.parquet"))
        assert files == sorted(path.name for path in two.glob("*.parquet"))
        assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    # q averages over more rows (documented), so only the first step is the same.
    first = [records[records["step"] == 0].set_index("id")["chosen_logp"] for *_, records in both]
    assert (first[0].sort_index() - first[1].sort_index()).abs().max() < 1e-4


@pytest.mark.long
def test_a_failure_in_one_process_is_its_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(__file__)))
    made = session(tmp_path, 2)
    with pytest.raises(NapoError, match=r"^Row 7 is bad: cut short\.$"):
        launch.shared(made, give_up, why="cut short")
    with pytest.raises(NapoError, match="A process of the stage ended early"):
        launch.shared(made, vanish)


def test_a_stage_that_nobody_shares_does_all_of_it_whatever_a_cluster_has_exported(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = open_session("smoke", str(tmp_path))
    stages.make_rows(made)
    rows = load_rows(stages.build_rows(made))
    assert len(rows) == made.profile.data.count


def test_a_folder_whose_processes_left_a_part_out_is_not_sealed(tmp_path, monkeypatch):
    made = open_session("smoke", str(tmp_path))
    stages.make_rows(made)
    monkeypatch.setattr("napo.stages.build.launch.shared", lambda session, work, **_: work(session))
    monkeypatch.setattr("napo.stages.build.worker", lambda: (1, 2))
    with pytest.raises(NapoError, match=r"has 1 of 3 parts; what is there is kept, run it again"):
        stages.build_rows(made)
    assert not (made.workspace.rows / "manifest.json").exists()

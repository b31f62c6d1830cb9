import pytest

from napo import stages
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.stages import ranks
from napo.stages.session import open_session


def test_only_the_ranks_of_a_stages_own_processes_count(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # as a shell under torchrun passes them on
    monkeypatch.setenv("WORLD_SIZE", "2")
    with monkeypatch.context() as patch:
        patch.setenv(ranks.WORKER, "1")
        ranks.alone()
        assert ranks.worker() == (1, 2)
    session = open_session("smoke", str(tmp_path))
    stages.make_rows(session)
    assert len(load_rows(stages.build_rows(session))) == session.profile.data.count


def test_a_folder_with_missing_parts_is_not_sealed(tmp_path, monkeypatch):
    session = open_session("smoke", str(tmp_path))
    stages.make_rows(session)
    monkeypatch.setattr("napo.stages.build.launch.shared", lambda session, work: work(session))
    monkeypatch.setattr("napo.stages.build.worker", lambda: (1, 2))
    with pytest.raises(NapoError, match=r"has 1 of 3 parts; run it again, the finished"):
        stages.build_rows(session)
    assert not (session.workspace.rows / "manifest.json").exists()

import pytest

from napo.stages import ranks


@pytest.fixture
def exported(monkeypatch):
    """A shell that runs under torchrun and passes its variables on."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")


def test_a_process_without_ranks_is_the_first_of_one():
    assert ranks.worker() == (0, 1)


def test_ranks_of_a_shell_are_forgotten(exported):
    ranks.alone()
    assert ranks.worker() == (0, 1)


def test_ranks_of_a_stages_own_processes_stay(exported, monkeypatch):
    monkeypatch.setenv(ranks.WORKER, "1")
    ranks.alone()
    assert ranks.worker() == (1, 2)

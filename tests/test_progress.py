import pytest

from napo import progress
from napo.progress import PROGRESS_LINE, Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_a_duration_has_at_most_two_units(seconds, text):
    assert duration(seconds) == text


def test_a_line_every_five_seconds_and_at_the_end_says_what_is_left(clock, capsys):
    with Progress(4, "train", "steps") as steps:
        for clock[0] in (4.0, 6.0, 10.0, 12.0):
            steps.advance()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["train: 2/4 steps, 6 s left", "train: 4/4 steps, done after 12 s"]
    assert all(map(PROGRESS_LINE.match, lines))


def test_the_time_left_counts_only_the_work_of_this_call(clock):
    resumed = Progress(100, "x", done=90)
    clock[0] = 10.0
    resumed.advance(5)
    assert resumed.remaining() == pytest.approx(10)


def test_an_interrupted_run_is_stopped_not_done(capsys):
    with pytest.raises(KeyboardInterrupt), Progress(4, "train"):
        raise KeyboardInterrupt
    assert "train: 0/4 rows, stopped after" in capsys.readouterr().out

import io

import pytest

from napo.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_progress_says_how_far_it_is_and_what_is_left():
    out = io.StringIO()
    with Progress(4, "train", "steps", every=0, stream=out) as progress:
        progress.advance()
        progress.advance(3)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("train: 1/4 steps, ") and lines[0].endswith(" left")
    assert lines[-1].startswith("train: 4/4 steps, done after")


def test_an_estimate_counts_only_what_this_call_did():
    progress = Progress(100, "x", done=90, stream=io.StringIO())
    progress._started -= 10
    progress.advance(5)
    assert progress.remaining() == pytest.approx(10, rel=0.01)


def test_a_stop_is_not_called_done():
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(4, "train", stream=out):
        raise KeyboardInterrupt
    assert "0/4 rows, stopped after" in out.getvalue()

"""Progress on the terminal: what is being done, how far it is, and how much time is left."""

from __future__ import annotations

import os
import re
import time
from types import TracebackType

EVERY = 5.0  # seconds between two lines
# A line of `Progress` among other output.
PROGRESS_LINE = re.compile(r"^.+: \d+/\d+ \w+, .*(left|done after|stopped after)")


def duration(seconds: float) -> str:
    """Seconds as text: 42 s, 3 min 05 s, 2 h 10 min."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """A line of progress with the time left, at most once every `EVERY` seconds.

    Plain lines instead of a bar: they read the same in a terminal, a notebook and a log file, and
    beside the lines of another job.

    Args:
        total: units of work in all.
        label: what is being done, "train A1 seed 0".
        unit: the name of a unit, plural.
        done: units that an interrupted call has already done.
    """

    def __init__(self, total: int, label: str, unit: str = "rows", *, done: int = 0) -> None:
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self.first = done
        self.started = self.written = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done, and write a line if the last one is old enough."""
        self.done += n
        now = time.monotonic()
        if now - self.written >= EVERY and self.done < self.total:
            self.written = now
            self.write(f"{duration(self.remaining())} left")

    def remaining(self) -> float:
        """Seconds left, at the pace of this call."""
        elapsed, done = time.monotonic() - self.started, self.done - self.first
        return elapsed / done * (self.total - self.done) if done > 0 else 0.0

    def write(self, text: str) -> None:
        """Write a line; of several processes only the first does."""
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"{self.label}: {self.done}/{self.total} {self.unit}, {text}", flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        verb = "stopped" if kind else "done"
        self.write(f"{verb} after {duration(time.monotonic() - self.started)}")

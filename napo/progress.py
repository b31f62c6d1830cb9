"""Progress on the terminal: what is being done, how far it is, and how long it will still take."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """A line of progress with an estimate, at most once every `every` seconds.

    Plain lines, not a bar that redraws: they read the same in a terminal, a notebook, a log file
    and beside another job's lines.

    Args:
        total: units of work in all.
        label: what is being done, "train A1 seed 0".
        unit: the name of a unit, plural.
        done: units already done by an earlier, interrupted call.
        every: seconds between lines.
        stream: where to write; standard output by default.
    """

    def __init__(
        self,
        total: int,
        label: str,
        unit: str = "rows",
        *,
        done: int = 0,
        every: float = 5.0,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done = self._resumed_at = done
        self._every, self._stream = every, stream
        self._started = time.monotonic()
        self._written = self._started

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done, and say so if the last line is old enough."""
        self.done += n
        now = time.monotonic()
        if now - self._written >= self._every and self.done < self.total:
            self._written = now
            self._say(f"{self.done}/{self.total} {self.unit}, {duration(self.remaining())} left")

    def remaining(self) -> float:
        """Seconds left if the rest goes as fast as what this call has done so far."""
        fresh = self.done - self._resumed_at
        if fresh <= 0:
            return 0.0
        return (time.monotonic() - self._started) / fresh * (self.total - self.done)

    def _say(self, text: str) -> None:
        if int(os.environ.get("RANK", "0")) > 0:
            return  # of several processes the first one speaks
        print(f"{self.label}: {text}", file=self._stream or sys.stdout, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        took = duration(time.monotonic() - self._started)
        verb = "done" if error is None else "stopped"
        self._say(f"{self.done}/{self.total} {self.unit}, {verb} after {took}")

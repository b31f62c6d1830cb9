"""Kill real stages at random moments, start them again, compare what they leave with a quiet run.

Each stage runs in a process of its own, forked from a server that has the libraries loaded, so
that a signal hits the work and not the imports. What is compared is every final file; what may
differ are logs and locks (see `content`).
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path

import numpy as np

from faults import work

TESTS = Path(__file__).parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
PATIENCE = 60.0  # seconds that a stage may take to end after a signal
# Executed notebooks, times and versions of libraries' caches are logs: they need not be the same.
LOGS = {"notebooks", "cache", "run.json", "pipeline.log", "progress.json"}


def content(root: Path) -> dict[str, str]:
    """Hash of every final file below a folder, by its path; hidden files are locks and drafts."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        hidden = any(part.startswith(".") or part in LOGS for part in name.parts)
        if path.is_file() and not hidden:
            found[name.as_posix()] = hashlib.sha256(_bytes(path)).hexdigest()
    return found


def _bytes(path: Path) -> bytes:
    """What a file says: of the judge's replies, which arrive in any order, the sorted rows."""
    if path.suffix != ".sqlite":
        return path.read_bytes()
    with sqlite3.connect(path) as database:
        return repr(database.execute("SELECT * FROM replies ORDER BY key").fetchall()).encode()


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Names of files that are missing, too many, or hold other bytes."""
    return sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))


def torn(found: Mapping[str, str], final: Mapping[str, str]) -> set[str]:
    """Files that are there after a kill and are not what they will be: they are not whole.

    Left out are the folders that get their name when they are finished, checkpoints, and the
    three kinds of files that grow: answers, a person's labels, a judge's replies (and what SQLite
    needs to undo a transaction that a kill has cut).
    """
    growing = ("answers.jsonl", f"{work.PERSON}.csv", ".sqlite", ".sqlite-journal")
    whole = (
        name
        for name in found
        if ".part/" not in name and "/checkpoints/" not in name and not name.endswith(growing)
    )
    return {name for name in whole if found[name] != final.get(name)}


def records(root: Path) -> set[tuple[str, int, str]]:
    """Every record on the disk: a row of a part, a line of answers or labels, a judge's reply.

    Checkpoints are left out: they are made to be replaced.
    """
    found = set()
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or ".part" in name or "/checkpoints/" in name:
            continue
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found |= {(name, at, digest) for at in range(pq.read_metadata(path).num_rows)}
        elif path.suffix in (".jsonl", ".csv"):
            lines = path.read_bytes().split(b"\n")[:-1]
            found |= {(name, at, str(line)) for at, line in enumerate(lines)}
        elif path.suffix == ".sqlite":
            with sqlite3.connect(path) as database:
                tables = database.execute("SELECT name FROM sqlite_master").fetchall()
                rows = database.execute("SELECT * FROM replies").fetchall() if tables else []
            found |= {(name, 0, str(row)) for row in rows}
    return found


@dataclass
class Outcome:
    """What one stage went through."""

    stage: str
    seconds: float = 0.0
    kills: int = 0
    by: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    torn: set[str] = field(default_factory=set)
    different: set[str] = field(default_factory=set)


def table(outcomes: Iterable[Outcome]) -> str:
    """Stages, the kills that each survived, the records that it lost, the files that were torn."""
    rows = [("stage", "quiet", "kills", "lost", "torn", "files that differ; signals")]
    for each in outcomes:
        by = ", ".join(f"{count} {name}" for name, count in sorted(each.by.items()))
        named = " ".join(sorted({*each.different, *each.torn})) or "none"
        numbers = (f"{each.seconds:.1f} s", str(each.kills), str(each.lost), str(len(each.torn)))
        rows.append((each.stage, *numbers, f"{named}; {by}"))
    return "\n".join(
        f"{stage:<16}{quiet:>8}{kills:>7}{lost:>6}{torn:>6}  {rest}"
        for stage, quiet, kills, lost, torn, rest in rows
    )


def _server_with_the_libraries() -> multiprocessing.context.ForkServerContext:
    """What processes are forked from; it finds this package by PYTHONPATH, and by nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.work"])
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), before]))
    try:
        forkserver.ensure_running()
    finally:
        os.environ["PYTHONPATH"] = before
    return context


class Laboratory:
    """Finished workspaces of one profile, before and after each stage, and what kills in copies.

    Args:
        folder: where everything goes.
        profile: name or YAML path.
        environment: for the stages, such as the judge's address.
        stages: those that are wanted, in the pipeline's order.
    """

    def __init__(
        self,
        folder: Path,
        profile: str,
        environment: Mapping[str, str],
        stages: Iterable[str] = tuple(work.STAGES),
    ) -> None:
        self.folder, self.profile, self.environment = folder, profile, dict(environment)
        self._context = _server_with_the_libraries()
        self.after: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        for stage in stages:
            self._quietly(stage)

    def _quietly(self, stage: str) -> None:
        """An uninterrupted run, its input kept: the measure of all others."""
        root = self.folder / "quiet"
        root.mkdir(exist_ok=True)
        shutil.copytree(root, self._before(stage))
        began = time.monotonic()
        process = self._start(stage, root)
        process.join()
        self.seconds[stage] = time.monotonic() - began
        assert process.exitcode == 0, f"{stage}: {self._words()}"
        self.after[stage] = content(root)

    def copy(self, stage: str, name: str) -> Path:
        """A workspace in which all stages before this one are finished."""
        root = self.folder / name
        shutil.rmtree(root, ignore_errors=True)
        return shutil.copytree(self._before(stage), root)

    def attempt(self, stage: str, root: Path, **limits: int) -> str:
        """Run a stage to its end or its failure: the sentence that it ends with, if it fails."""
        log = self.folder / "attempt.log"
        log.unlink(missing_ok=True)
        process = self._start(stage, root, log, **limits)
        process.join(PATIENCE)
        assert process.exitcode is not None, f"{stage} hangs"
        if process.exitcode == 0:
            return ""
        return log.read_text().strip().splitlines()[-1]

    def until(self, stage: str, root: Path, pattern: str, do: Callable[[int], None]) -> str:
        """Start a stage; once a file matches, do something to it (told its pid); its last words."""
        log = self.folder / "attempt.log"
        log.unlink(missing_ok=True)
        process = self._start(stage, root, log)
        while process.exitcode is None and not any(root.glob(pattern)):
            time.sleep(0.001)
        assert process.exitcode is None, f"{stage} ended before {pattern} was there"
        do(process.pid)
        process.join(PATIENCE)
        return ["", *log.read_text().strip().splitlines()][-1]

    def _before(self, stage: str) -> Path:
        return self.folder / "before" / stage.replace(" ", "-")

    def _start(
        self, stage: str, root: Path, log: Path | None = None, **limits: int
    ) -> multiprocessing.Process:
        given = (stage, self.profile, root, log or self.folder / "log", self.environment)
        process = self._context.Process(target=work.run, args=given, kwargs=limits)
        process.start()
        return process

    def _words(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def survive(
        self, stage: str, kills: int, seed: int, signals: Sequence[signal.Signals] = SIGNALS
    ) -> Outcome:
        """Run a stage until so many signals have hit it; after each third one to its end.

        What was there at one signal must be there at the next, and at the end.
        """
        outcome = Outcome(stage, self.seconds[stage])
        rng = np.random.default_rng([seed, *stage.encode()])
        while outcome.kills < kills:
            root = self.copy(stage, "killed")
            written: set[tuple[str, int, str]] = set()
            for _ in range(min(3, kills - outcome.kills)):
                sign = signals[rng.integers(len(signals))]
                if self._killed(stage, root, rng.uniform(0, self.seconds[stage]), sign):
                    outcome.kills += 1
                    outcome.by[sign.name] = outcome.by.get(sign.name, 0) + 1
                    there = records(root)
                    outcome.lost += len(written - there)
                    written |= there
                    outcome.torn |= torn(content(root), self.after[stage])
            process = self._start(stage, root)
            process.join(PATIENCE)
            assert process.exitcode == 0, f"{stage} does not go on: {self._words()}"
            outcome.lost += len(written - records(root))
            outcome.different |= set(differences(content(root), self.after[stage]))
        return outcome

    def _killed(self, stage: str, root: Path, delay: float, sign: signal.Signals) -> bool:
        """Whether a signal after so many seconds came before the stage's end."""
        process = self._start(stage, root)
        process.join(delay)
        if process.exitcode is not None:
            assert process.exitcode == 0, f"{stage} does not go on: {self._words()}"
            return False
        os.kill(process.pid, sign)
        process.join(PATIENCE)
        # An interrupt is an exception, which ends Python with 1.
        expected = {0, 1} if sign == signal.SIGINT else {0, -sign}
        assert process.exitcode in expected, f"{stage} after {sign.name}: {self._words()}"
        return process.exitcode != 0

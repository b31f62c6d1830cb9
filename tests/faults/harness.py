"""Kill stages at random moments, run them again, and compare their files with a quiet run.

Each stage runs in its own process, forked from a server with the libraries loaded, so that a signal
hits the work and not the imports. All final files are compared, except logs and locks.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import forkserver
from pathlib import Path

import numpy as np

from faults import work

TESTS = Path(__file__).parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
PATIENCE = 60.0  # seconds that a stage may take to end after a signal
# These hold times and versions, so they may differ.
LOGS = {"notebooks", "cache", "run.json", "pipeline.log", "progress.json"}


def content(root: Path) -> dict[str, str]:
    """Hash of every final file below a folder, by path; hidden files are locks and drafts."""
    hashes = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        hidden = any(part.startswith(".") or part in LOGS for part in name.parts)
        if path.is_file() and not hidden:
            hashes[name.as_posix()] = hashlib.sha256(_bytes(path)).hexdigest()
    return hashes


def _bytes(path: Path) -> bytes:
    """The content of a file; the judge's replies arrive in any order, so they are sorted."""
    if path.suffix != ".sqlite":
        return path.read_bytes()
    with sqlite3.connect(path) as database:
        return repr(database.execute("SELECT * FROM replies ORDER BY key").fetchall()).encode()


def differences(files: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Names of files that are missing, additional, or different."""
    return sorted(n for n in {*files, *expected} if files.get(n) != expected.get(n))


def torn(files: Mapping[str, str], final: Mapping[str, str]) -> set[str]:
    """Files that are incomplete after a kill: they differ from their final content.

    Drafts and checkpoints do not count, nor the three kinds of files that grow: answers, a
    person's labels, and a judge's replies with SQLite's journal.
    """
    growing = ("answers.jsonl", f"{work.PERSON}.csv", ".sqlite", ".sqlite-journal")
    complete = (
        name
        for name in files
        if ".part/" not in name and "/checkpoint-" not in name and not name.endswith(growing)
    )
    return {name for name in complete if files[name] != final.get(name)}


def records(root: Path) -> set[tuple[str, int, str]]:
    """Every record on the disk: rows of parts, lines of answers and labels, a judge's replies.

    Checkpoints do not count: later ones replace them.
    """
    written = set()
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or ".part" in name or "/checkpoint-" in name:
            continue
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            written |= {(name, row, digest) for row in range(pq.read_metadata(path).num_rows)}
        elif path.suffix in (".jsonl", ".csv"):
            lines = path.read_bytes().split(b"\n")[:-1]
            written |= {(name, number, str(line)) for number, line in enumerate(lines)}
        elif path.suffix == ".sqlite":
            with sqlite3.connect(path) as database:
                tables = database.execute("SELECT name FROM sqlite_master").fetchall()
                rows = database.execute("SELECT * FROM replies").fetchall() if tables else []
            written |= {(name, 0, str(row)) for row in rows}
    return written


def _server_with_the_libraries() -> multiprocessing.context.ForkServerContext:
    """The server that processes are forked from; it finds this package by PYTHONPATH."""
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
    """Workspaces of one profile before and after each stage; tests work in copies of them.

    Args:
        folder: the folder of all workspaces.
        profile: name or YAML path.
        environment: variables for the stages, such as the judge's address.
        stages: the stages to run, in the pipeline's order.
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
        """Run a stage without interruption, and keep its input for the copies."""
        root = self.folder / "quiet"
        root.mkdir(exist_ok=True)
        shutil.copytree(root, self._before(stage))
        began = time.monotonic()
        process = self._start(stage, root)
        process.join()
        self.seconds[stage] = time.monotonic() - began
        assert process.exitcode == 0, f"{stage}: {self._log()}"
        self.after[stage] = content(root)

    def copy(self, stage: str, name: str) -> Path:
        """A workspace in which all earlier stages are finished."""
        root = self.folder / name
        shutil.rmtree(root, ignore_errors=True)
        return shutil.copytree(self._before(stage), root)

    def attempt(self, stage: str, root: Path, **limits: int) -> str:
        """Run a stage to its end; returns its last line if it fails."""
        log = self.folder / "attempt.log"
        log.unlink(missing_ok=True)
        process = self._start(stage, root, log, **limits)
        process.join(PATIENCE)
        assert process.exitcode is not None, f"{stage} hangs"
        if process.exitcode == 0:
            return ""
        return log.read_text().strip().splitlines()[-1]

    def until(self, stage: str, root: Path, pattern: str, do: Callable[[int], None]) -> str:
        """Start a stage, call `do` with its pid once a file matches, and return its last line."""
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
        arguments = (stage, self.profile, root, log or self.folder / "log", self.environment)
        process = self._context.Process(target=work.run, args=arguments, kwargs=limits)
        process.start()
        return process

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def survive(self, stage: str, kills: int, seed: int) -> str:
        """Run a stage until `kills` signals have hit it; after each third, run it to its end.

        Records on the disk at one signal must be there at the next and at the end, no final file
        may be incomplete, and the end is that of a quiet run. Returns a line with the signals.
        """
        rng, hits = np.random.default_rng([seed, *stage.encode()]), []
        while len(hits) < kills:
            root = self.copy(stage, "killed")
            written: set[tuple[str, int, str]] = set()
            for _ in range(min(3, kills - len(hits))):
                sign = SIGNALS[rng.integers(len(SIGNALS))]
                if self._killed(stage, root, rng.uniform(0, self.seconds[stage]), sign):
                    hits.append(sign.name)
                    now = records(root)
                    assert not written - now, f"{stage} lost records"
                    written |= now
                    assert not torn(content(root), self.after[stage]), stage
            process = self._start(stage, root)
            process.join(PATIENCE)
            assert process.exitcode == 0, f"{stage} does not resume: {self._log()}"
            assert not written - records(root), f"{stage} lost records"
            assert not differences(content(root), self.after[stage]), stage
        return f"{stage:<16} {self.seconds[stage]:.1f} s, killed by {', '.join(hits)}"

    def _killed(self, stage: str, root: Path, delay: float, sign: signal.Signals) -> bool:
        """Send a signal after `delay` seconds; returns whether the stage was still running."""
        process = self._start(stage, root)
        process.join(delay)
        if process.exitcode is not None:
            assert process.exitcode == 0, f"{stage} does not resume: {self._log()}"
            return False
        os.kill(process.pid, sign)
        process.join(PATIENCE)
        # An interrupt is an exception, which ends Python with 1.
        expected = {0, 1} if sign == signal.SIGINT else {0, -sign}
        assert process.exitcode in expected, f"{stage} after {sign.name}: {self._log()}"
        return process.exitcode != 0

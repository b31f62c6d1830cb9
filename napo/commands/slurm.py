"""The jobs of a pipeline under SLURM: submitting, waiting, cancelling, and why one failed.

The names of all jobs of a pipeline begin with its prefix. The next pipeline finds what a killed one
submitted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

from napo.config import strict_yaml
from napo.errors import NapoError, one_line, unknown
from napo.workspace.files import fingerprint, make_folder, write_json

SHIPPED = Path(__file__).parent / "snakemake"  # the folders that --on knows by name
PLUGIN = "snakemake_executor_plugin_slurm"
REFUSED = r"The error message was '([^']+)'|Job submission failed with exception: (.+)"
WILDCARDS = "_wildcards_"  # between rule and variant in a job's comment
HINTS = {
    "TIMEOUT": " (its time limit; HOURS=N or --hours N sets another)",
    "OUT_OF_MEMORY": " (mem_mb in its settings is too low)",
}


@dataclass(frozen=True)
class QueuedJob:
    """A job that is pending, running or ending; `name` is its rule and its variant."""

    number: str
    state: str
    reason: str  # why it is pending, in SLURM's words
    name: str


@dataclass(frozen=True)
class Queue:
    """The jobs whose names begin with `prefix`; none if it is empty (no SLURM).

    Every `seconds` the queue is read for jobs that wait.
    """

    prefix: str = ""
    partition: str = ""  # empty: the cluster's default
    slots: int = 0  # jobs in the queue at a time
    seconds: float = 60.0

    def jobs(self) -> list[QueuedJob]:
        """The jobs in the queue.

        Raises:
            NapoError: if squeue fails.
        """
        if not self.prefix:
            return []
        call = ["squeue", "--me", "--noheader", "--format=%i|%T|%r|%k|%j"]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            raise NapoError(f"squeue failed, so jobs are unknown: {one_line(done.stderr)}")
        lines = [line.split("|", 4) for line in done.stdout.splitlines()]
        return [
            QueuedJob(number, state, reason, comment.removeprefix("rule_").replace(WILDCARDS, " "))
            for number, state, reason, comment, job_name in lines
            if job_name.startswith(f"{self.prefix}_")
        ]

    def cancel(self) -> int:
        """Cancel all jobs; returns their number."""
        numbers = [job.number for job in self.jobs()]
        if numbers:
            subprocess.run(["scancel", *numbers], check=False)
        return len(numbers)

    def wait(self) -> None:
        """Wait for the jobs of an earlier command, which go on by themselves."""
        shown: set[QueuedJob] = set()
        while jobs := self.jobs():
            for job in jobs:
                if job not in shown:
                    reason = f", {job.reason}" if job.state == "PENDING" else ""
                    print(
                        f"An earlier command submitted {job.name} (job {job.number}, "
                        f"{job.state.lower()}{reason}); this one waits for it, Ctrl-C cancels it.",
                        flush=True,
                    )
            shown.update(jobs)
            time.sleep(self.seconds)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Meanwhile show each pending job with SLURM's reason, again if the reason changes."""
        end = Event()

        def watch() -> None:
            shown: set[QueuedJob] = set()
            while not end.wait(self.seconds):
                try:
                    jobs = {job for job in self.jobs() if job.state == "PENDING"}
                except NapoError:  # the next look may succeed
                    continue
                for job in jobs - shown:
                    if job.reason != "None":  # not looked at yet
                        print(f"{job.name} (job {job.number}) waits: {job.reason}", flush=True)
                        shown.add(job)

        thread = Thread(target=watch, daemon=True)
        if self.prefix:
            thread.start()
        try:
            yield
        finally:
            end.set()


def place(
    on: str, data: Path, partition: str = "", account: str = "", hours: float = 0
) -> tuple[list[str], Queue]:
    """Snakemake's options for running on a place, and its queue.

    Args:
        on: the name of a shipped folder of settings, or the path of one; empty: here.
        data: the profile's folder. The settings that are used are written into it.
        partition: SLURM's; empty: that of the settings, or the cluster's default.
        account: the same for the account.
        hours: time limit of the jobs that have their own settings; 0: as the settings say.

    Raises:
        NapoError: for an unknown place, options that it does not have, or programs that it lacks.
    """
    known = [folder.name for folder in SHIPPED.iterdir()]
    folder = SHIPPED / on if on in known else Path(on)
    if on and not (folder / "config.yaml").is_file():
        raise unknown("place to run on", on, known)
    settings: dict[str, Any] = strict_yaml.read(folder / "config.yaml") if on else {}
    if settings.get("executor") != "slurm":
        if partition or account or hours:
            raise NapoError("--partition, --account and --hours need --on slurm (ON=slurm).")
        return (["--workflow-profile", str(folder)] if on else []), Queue()
    if find_spec(PLUGIN) is None:
        raise NapoError(
            "--on slurm needs Snakemake's plugin: pip install -e '.[slurm]' (.venv/bin/pip if make "
            "set it up)."
        )
    if shutil.which("sbatch") is None:
        raise NapoError("--on slurm needs sbatch, which is not here; run this on a login node.")
    defaults = settings.setdefault("default-resources", {})
    for name, value in (("slurm_partition", partition), ("slurm_account", account)):
        if value:
            defaults[name] = repr(value)  # Snakemake reads a Python expression
    for resources in settings.get("set-resources", {}).values() if hours else ():
        resources["runtime"] = max(1, round(60 * hours))
    settings["slurm-jobname-prefix"] = prefix(data)
    make_folder(data / ".slurm")
    write_json(data / ".slurm" / "config.yaml", settings)  # JSON is YAML
    seconds = settings.get("slurm-init-seconds-before-status-checks", Queue.seconds)
    named = str(defaults.get("slurm_partition", "")).strip("'\"")
    queue = Queue(prefix(data), named, settings.get("jobs", 0), seconds)
    return ["--workflow-profile", str(data / ".slurm")], queue


def prefix(data: Path) -> str:
    """The beginning of the names of all jobs of a profile's folder."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", data.name)[:24]
    return f"napo-{words}-{fingerprint(str(data))[:8]}"


def last_error(log: str) -> str:
    """What SLURM says in a job's log about a notebook that did not start, or where to look."""
    with suppress(OSError):
        text = Path(log).read_text(encoding="utf-8", errors="replace")
        if errors := re.findall(r"^(?:srun|slurmstepd): (?:error|fatal): .+", text, re.MULTILINE):
            return one_line(errors[-1])
    return f"{log or 'pipeline.log'} has the reason."


def cause(message: str, number: str) -> str:
    """Why SLURM refused or ended a job, from the plugin's message about job `number`.

    Returns:
        A sentence, or an empty text if the job ended by itself.
    """
    if refused := re.search(REFUSED, message):
        words = next(filter(None, refused.groups())).replace("sbatch: error: ", "")
        return (
            f"SLURM refused the job: {one_line(words).rstrip('.')}; "
            "correct --partition, --account or --hours (PARTITION, ACCOUNT, HOURS)."
        )
    state = re.search(r"SLURM status is: '(\w+)", message)
    if state is None or state[1] == "FAILED":
        return ""
    return (
        f"SLURM ended job {number} as {state[1]}{HINTS.get(state[1], '')}; what is finished is "
        "kept, run the same command to go on."
    )

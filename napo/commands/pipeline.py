"""Run the Snakefile with one lock, progress, and errors as sentences: `napo reproduce`.

`napo study` runs it to another goal (`napo.commands.study`).

Snakemake decides what to run. This module holds the workspace's lock, shows jobs and their
progress (the whole output goes to pipeline.log), and says why a notebook failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napo.commands import processes, slurm
from napo.commands.jobs import Jobs
from napo.commands.snakemake_events import SEPARATOR
from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.progress import PROGRESS_LINE, duration
from napo.workspace.files import make_folder, write_json, writing
from napo.workspace.folders import Workspace, checkout
from napo.workspace.hashing import remember_in
from napo.workspace.locks import hold
from napo.workspace.manifests import MANIFEST, missing_files

if TYPE_CHECKING:
    from napo.stages.session import Session

CONFIG_FILE = ".snakemake-config.json"
# glibc returns memory to the system after nearly every operation of a small model, and has to fetch
# it again for the next one: 12 % of an evaluation. With these limits (bytes) it keeps the memory.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
UP_TO_DATE = "Nothing to do, every result and figure is there"


class Goal(Protocol):
    """What a pipeline makes: a rule of the Snakefile that runs nothing itself."""

    rule: str

    def config(self, session: Session, profile: str, dry_run: bool) -> dict[str, Any]:
        """The Snakefile's config: what is wanted, and in `again` what is out of date.

        `study`, if it is there, has each job's losses with commas between them.
        """

    def page(self, session: Session) -> Path:
        """The file to read in the end."""

    def problems(self, session: Session) -> list[str]:
        """What could not be made, in sentences."""


@dataclass(frozen=True)
class Reproduction:
    """The goal of `napo reproduce`: every result, figure and table. The fields are its options."""

    seeds: str = ""
    tune: str = ""
    baselines: bool = False
    rule: str = "all"

    def config(self, session: Session, profile: str, dry_run: bool) -> dict[str, Any]:
        """The Snakefile's config; folders that lack a file lose their manifest."""
        return snakefile_config(session, profile, self.seeds, self.tune, self.baselines, dry_run)

    def page(self, session: Session) -> Path:
        """The report."""
        tables = session.edition("tables", self.seeds, session.tune(self.tune))
        return session.workspace.data / tables / "report.html"

    def problems(self, session: Session) -> list[str]:
        """Figures that cannot be drawn yet."""
        from napo.stages.labels import figures4

        return figures4(session)[1]


def run(
    goal: Goal,
    profile: str,
    root: str,
    cores: int,
    *,
    dry_run: bool = False,
    on: str = "",
    partition: str = "",
    account: str = "",
    hours: float = 0,
    extra: Sequence[str] = (),
) -> int:
    """Run the pipeline to a goal.

    The arguments are the options of `napo reproduce`; `extra` goes to Snakemake.

    Returns:
        0, or 128 and the number of the signal that stopped it.

    Raises:
        NapoError: when a job fails (with its sentence), or the workspace is in use.
    """
    settings = load_profile(profile)
    if not checkout():
        raise NapoError(
            "The Snakefile and the notebooks are missing; clone the repository and run "
            "pip install -e . in it."
        )
    from napo.stages.session import Session

    if profile.endswith((".yaml", ".yml")):
        profile = str(Path(profile).resolve())  # jobs run in the workspace
    workspace = Workspace.open(root, settings.name)
    remember_in(workspace.hashes)
    session = Session(settings, workspace)
    page = goal.page(session)  # refuses wrong options before anything is written
    data, began = workspace.data, time.monotonic()
    place, queue = slurm.place(on, data, partition, account, hours)
    jobs = Jobs(queue.slots or cores, queue.partition)
    if not settings.world.make_rows:
        from napo.commands import check
        from napo.stages.session import open_session

        if not check.passed(session):
            check.report(open_session(profile, root))
    with hold(data, "already runs a pipeline in"):
        make_folder(data)
        processes.end(data)  # what a killed pipeline left running
        with processes.stop_on_signals():
            try:
                if not dry_run:
                    queue.wait()
                remove_backups(workspace)
                config = goal.config(session, profile, dry_run)
                write_json(data / CONFIG_FILE, config)
                study = config.get("study", {})
                cells = {job: len(losses.split(",")) for job, losses in study.items()}
                jobs.sizes = {"study_cells": cells}
                # Files after --forcerun would replace the goal as targets.
                options = [goal.rule]
                options += ["--forcerun", *config["again"]] if config["again"] else []
                # A run of the paper's scale takes hours; one that fails does not stop the others.
                options += ["--keep-going"] if settings.scale == "paper" else []
                options += ["--dry-run"] if dry_run else []
                call = snakemake_call(data / CONFIG_FILE, cores, [*options, *place, *extra])
                with queue.watched():
                    code = follow(call, data, jobs)
            except processes.Stopped as stopped:
                processes.end(data)
                # A lost connection to a login node leaves the cluster's jobs to the next command.
                kept = dry_run or stopped.code == 128 + signal.SIGHUP
                count = 0 if kept else queue.cancel()
                cancelled = f"; {count} submitted jobs are cancelled" if count else ""
                print(
                    f"Interrupted{cancelled}; what is finished is kept, run the same command to "
                    "go on."
                )
                return stopped.code
            except BaseException:  # stop all jobs
                processes.end(data)
                if not dry_run:
                    queue.cancel()
                raise
    if code:
        raise NapoError(reason(code, jobs, workspace))
    problems = goal.problems(session)
    print(*problems, sep="\n", end="\n" if problems else "")
    if dry_run and jobs.planned:
        print(f"Nothing was run; the plan is in {data / 'pipeline.log'}.")
        return 0
    nothing = "Nothing to do for this request" if extra or problems else UP_TO_DATE
    end = f"All done in {duration(time.monotonic() - began)}" if jobs.planned else nothing
    print(f"{end}: {page}" if page.is_file() else f"{end}.", flush=True)
    return 0


def snakefile_config(
    session: Session, profile: str, seeds: str, tune: str, baselines: bool, dry_run: bool
) -> dict[str, Any]:
    """The Snakefile's config: what is wanted, and which finished files are made again.

    Folders that lack a file lose their manifest, so that their job runs.
    """
    from napo.stages import plan
    from napo.stages.labels import figures4

    variants = plan.variants_of(session, seeds, tune, baselines)
    wanted = (*session.profile.variants, *(session.profile.baselines if baselines else ()))
    for name in plan.waiting(session, wanted, seeds, tune):
        print(f"{name} waits until the samples are labelled (notebooks/02_annotate_noise.ipynb).")
    plan.check_settings(session, plan.runs_of(session, variants, seeds, tune))
    config = {"profile": profile, "workspace": str(session.workspace.root), "variants": variants,
              "seeds": seeds, "tune": tune}  # fmt: skip
    config = {name: value for name, value in config.items() if value}
    again = plan.outdated(session, variants, seeds, tune)
    for folder in plan.incomplete(session, variants, seeds, tune):
        for name in missing_files(folder):
            print(f"{folder / name} is missing; it is made again.")
        if not dry_run:
            (folder / MANIFEST).unlink()
    return config | {"figures4": figures4(session)[0], "again": again}


def remove_backups(workspace: Workspace) -> None:
    """Remove the copies of outputs that a killed Snakemake leaves.

    It would put them back if their job fails, although the user may have deleted the folder since.
    """
    for folder in (workspace.data, workspace.figures):
        backup = workspace.root / ".snakemake" / "backups" / folder.relative_to(workspace.root)
        shutil.rmtree(backup, ignore_errors=True)


def snakemake_call(config: Path, cores: int, extra: Sequence[str]) -> list[str]:
    """The call of Snakemake. Our own lock replaces Snakemake's, which a SIGKILL would leave behind.

    `config` is a JSON file of the Snakefile's config. On the command line Snakemake would read
    values as YAML: numbers as numbers, " #" as a comment.
    """
    return [
        *(sys.executable, "-m", "napo.commands.snakemake_events"),
        *("--configfile", str(config), "--snakefile", f"{checkout()}/Snakefile"),
        *("--rerun-triggers", "mtime"),
        # An output that exists is whole, whatever Snakemake remembers of a killed job.
        *("--nolock", "--nocolor", "--ignore-incomplete", "--keep-incomplete"),
        *("--cores", str(cores)),
        *extra,
    ]


def follow(call: Sequence[str], data: Path, jobs: Jobs) -> int:
    """Run Snakemake to its end, and return its exit code.

    Its output goes to pipeline.log, our lines to the terminal; `jobs` follows its events.
    """
    programs = str(Path(sys.executable).parent)  # this environment's papermill comes first
    path = os.pathsep.join([programs, os.environ.get("PATH", "")])
    # This environment's kernel comes first, too: a user's kernel python3 may have another napo.
    kernels = os.pathsep.join([f"{sys.prefix}/share/jupyter", os.environ.get("JUPYTER_PATH", "")])
    environment = KEEP_MEMORY | os.environ
    environment |= {"PATH": path, "JUPYTER_PATH": kernels, "PYTHONUNBUFFERED": "1"}
    log_path = data / "pipeline.log"
    with writing(log_path), open(log_path, "w", encoding="utf-8") as log:
        process = processes.start(call, data, environment)
        for line in process.stdout or ():
            text, _, event = line.partition(SEPARATOR)
            log.write(text)
            log.flush()
            shown = jobs.update(json.loads(event), time.monotonic()) if event else ""
            if PROGRESS_LINE.match(text):
                shown = "  " + text.rstrip("\n")
            elif not jobs.planned and ": error: " in text:  # an option that Snakemake refuses
                jobs.error = f"{text.partition(': error: ')[2].strip()}; see snakemake --help."
            if shown:
                print(shown, flush=True)
        return process.wait()


def reason(code: int, jobs: Jobs, workspace: Workspace) -> str:
    """Why Snakemake stopped: a job's sentence, the Snakefile's or Snakemake's own."""
    if not jobs.failed:
        log = workspace.data / "pipeline.log"
        return jobs.error or f"Snakemake stopped with code {code}; see {log}."
    first, *others = (workspace.root / log for log in jobs.failed)
    also = f"; {len(others)} others failed too: {', '.join(map(str, others))}" if others else ""
    read = failure_sentence if first.suffix == ".ipynb" else last_sentence
    sentence = next(iter(jobs.failed.values())) or read(first, jobs.slurm_log)
    kind = "notebook" if first.suffix == ".ipynb" else "job's output"
    return f"{sentence} (The failed {kind}: {first}{also})"


def last_sentence(path: Path, log: str = "") -> str:
    """Why a command failed: the last error in its output, our own sentence or another's.

    `log` is SLURM's file of a job's output: it says why a command did not start.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if errors := re.findall(r"^(?:napo: (.+)|(\w[\w.]*(?:Error|Exception|Exit)\b.*))$", text, re.M):
        return "".join(errors[-1])
    if log:
        return f"the command did not start; {slurm.last_error(log)}"
    return (
        "the command ended without a word (killed, perhaps for memory); what is finished is kept, "
        "run the same command to go on."
    )


def failure_sentence(notebook: Path, log: str = "") -> str:
    """Why a notebook failed: the last error among its outputs.

    A NapoError is its own sentence. Any other error is unexpected and is named with its type.
    `log` is SLURM's file of a job's output: it says why a notebook did not start.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return f"the notebook did not start; {slurm.last_error(log)}"
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = [output for output in outputs if output.get("output_type") == "error"]
    if not errors:
        return (
            "the notebook's kernel ended before the notebook did (killed, perhaps for memory); "
            "what is finished is kept, run the same command to go on."
        )
    last = errors[-1]
    return last["evalue"] if last["ename"] == "NapoError" else f"{last['ename']}: {last['evalue']}"

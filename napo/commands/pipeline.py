"""Run the Snakefile with one lock, progress with an estimate, and errors as sentences.

    python -m napo.commands.pipeline --profile tiny --cores 2

Snakemake decides what to do; this module holds the workspace's lock, turns Snakemake's and
papermill's output into lines that people read (the whole output goes to a log file), and, when a
notebook fails, says its own last sentence instead of a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from napo.commands import processes
from napo.config.profile import edition, load_profile, seeds
from napo.config.settings import TUNES
from napo.errors import NapoError, unknown
from napo.progress import duration
from napo.workspace.files import make_folder, write_json, writing
from napo.workspace.folders import Workspace, checkout, remove
from napo.workspace.locks import hold
from napo.workspace.manifests import MANIFEST, missing_files

# Seconds of one job of each rule at the tiny scale on two cores: the estimate's first guess,
# corrected by what the jobs of this run really take.
USUAL_SECONDS = {
    "icon_world": 40,
    "build_biased_data": 25,
    "annotate_noise": 10,
    "loss_curves": 10,
    "margin_distributions": 12,
    "train": 60,
    "evaluate": 100,
    "evaluate_base": 40,
    "report": 25,
}

GOAL = "all"  # the Snakefile's first rule: it asks for files and does nothing
CONFIG = ("seeds", "tune")  # what --config may name, beside profile and workspace
UP_TO_DATE = "Nothing to do, every result and figure is there"
CONFIG_FILE = ".snakemake-config.json"

_RULE = re.compile(r"^(?:local)?rule (\w+):$")
_JOB = re.compile(r"^\s+jobid: (\d+)$")
_WILDCARDS = re.compile(r"^\s+wildcards: (.+)$")
_PLANNED = re.compile(r"^(\w+)\s+(\d+)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+)")
_FAILED = re.compile(r"^Error in rule (\w+)")
_LOG = re.compile(r"^\s+log: (\S+)")
_PROGRESS = re.compile(r"^.+: \d+/\d+ \w+, .*(left|done after|stopped after)")


@dataclass
class Board:
    """What is known of the pipeline while it runs; fed with Snakemake's lines, gives ours."""

    planned: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    finished: int = 0
    took: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)  # the executed notebooks, as they failed
    _rule: str = ""
    _job: str = ""
    _failing: str = ""

    def feed(self, line: str, now: float, cores: int) -> Iterator[str]:
        """Take one line of output; yield the lines to show for it."""
        if _PROGRESS.match(line):
            yield "  " + line
        elif found := _PLANNED.match(line):
            if found[1] not in ("total", GOAL):
                self.planned[found[1]] = int(found[2])
        elif found := _RULE.match(line):
            self._rule, self._failing = found[1], ""
        elif found := _JOB.match(line):
            self._job = found[1]
            self.jobs[self._job] = (self._rule, "", now)
        elif found := _WILDCARDS.match(line):
            rule, _, started = self.jobs.get(self._job, (self._rule, "", now))
            self.jobs[self._job] = (rule, found[1].split("=")[-1], started)
        elif found := _FAILED.match(line):
            self._failing = found[1]
        elif self._failing and (found := _LOG.match(line)):
            rule, self._failing = self._failing, ""
            if found[1] not in self.failed:  # Snakemake says it again at the end
                self.failed.append(found[1])
                yield f"{rule} failed; see {found[1]}"
        elif found := _FINISHED.match(line):
            if self.jobs.get(found[1], ("",))[0] == GOAL:
                del self.jobs[found[1]]
            else:
                yield self._finish(found[1], now, cores)

    def _finish(self, job: str, now: float, cores: int) -> str:
        rule, of, started = self.jobs.pop(job, ("job", "", now))
        self.finished += 1
        self.took.setdefault(rule, []).append(now - started)
        total = sum(self.planned.values())
        name = f"{rule} {of}".strip()
        line = f"[{self.finished}/{total}] {name} done in {duration(now - started)}"
        if self.finished < total:
            line += f"; about {duration(self.remaining(now, cores))} left"
        return line

    def remaining(self, now: float, cores: int) -> float:
        """Seconds until the pipeline ends, if two jobs side by side keep their pace."""
        done = [(USUAL_SECONDS.get(rule, 30), took) for rule, all_ in self.took.items()
                for took in all_]  # fmt: skip
        pace = sum(took for _, took in done) / max(1e-9, sum(usual for usual, _ in done))
        work = 0.0
        for rule, count in self.planned.items():
            taken = self.took.get(rule, [])
            each = sum(taken) / len(taken) if taken else USUAL_SECONDS.get(rule, 30) * pace
            running = [now - started for r, _, started in self.jobs.values() if r == rule]
            work += each * (count - len(taken)) - sum(min(each, spent) for spent in running)
        return max(0.0, work) / cores


def configured(given: Iterable[str]) -> dict[str, str]:
    """The Snakefile's config from words such as "seeds=0,1".

    Raises:
        NapoError: for another name, or a value that is none of its values.
    """
    options = {}
    for pair in given:
        name, equal, value = pair.partition("=")
        if name not in CONFIG or not equal:
            raise unknown("--config", name, CONFIG)
        if name == "tune" and value not in TUNES:
            raise unknown("tune", value, TUNES)
        if name == "seeds":
            seeds(value)
        options[name] = value
    return options


def complaint(log: Path) -> str:
    """Why Snakemake did not begin: a sentence of the Snakefile, or what it could not understand."""
    lines = log.read_text(encoding="utf-8").splitlines()
    for line, following in pairwise(lines):
        if line.startswith("NapoError in file"):
            return following.strip()
    said = [line for line in lines if ": error: " in line]
    return f"{said[-1].partition(': error: ')[2]}; see python -m snakemake --help." if said else ""


def failure_sentence(notebook: Path) -> str:
    """What a failed notebook says was wrong: the last error among its outputs.

    The sentence of a NapoError stands alone; any other error is named with its type, as it is not
    meant to happen.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return "the notebook did not start; the log has the reason."
    errors = [
        output
        for cell in cells
        for output in cell.get("outputs", [])
        if output.get("output_type") == "error"
    ]
    if not errors:
        return (
            "the notebook's kernel ended before the notebook did (killed, perhaps for memory); "
            "what is finished is kept, run the same command to go on."
        )
    last = errors[-1]
    return last["evalue"] if last["ename"] == "NapoError" else f"{last['ename']}: {last['evalue']}"


def command(config: Path, cores: int, extra: Iterable[str]) -> list[str]:
    """The Snakemake call. Our own lock replaces Snakemake's, which a SIGKILL would leave behind.

    Args:
        config: a JSON file of the Snakefile's config: of values in the call Snakemake makes numbers
            and YAML, and another folder of one whose name holds " #".
        cores: jobs side by side.
        extra: further arguments.
    """
    snakefile = checkout() / "Snakefile"
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)),
        *("--cores", str(cores), "--nolock", "--nocolor"),
        *("--rerun-incomplete", "--keep-incomplete"),
        *("--rerun-triggers", "mtime", "params", "input"),
        *("--configfile", str(config)),
        *extra,
    ]


def run(
    profile: str,
    root: str,
    cores: int,
    options: Mapping[str, str] | None = None,
    extra: Iterable[str] = (),
) -> int:
    """Run the pipeline to its end; 0 on success.

    Args:
        profile: name or YAML path.
        root: the workspace, empty for the checkout.
        cores: jobs side by side.
        options: further values of the Snakefile's config.
        extra: further arguments of Snakemake.

    Raises:
        NapoError: when a notebook fails (with its sentence), or the workspace is in use.
    """
    settings, extra = load_profile(profile), list(extra)
    if profile.endswith((".yaml", ".yml")):
        profile = str(Path(profile).resolve())  # jobs run in the workspace
    workspace = Workspace.open(root, settings.name)
    if not settings.world.make_rows and not (workspace.data / "check.json").is_file():
        from napo.commands import check

        if code := check.main(["--profile", profile, "--workspace", str(workspace.root)]):
            return code
    log = workspace.data / "pipeline.log"
    dry = bool({"-n", "--dry-run", "--dryrun"} & set(extra))
    board = Board()
    began = time.monotonic()
    with hold(workspace.data, "already runs a pipeline in"):
        make_folder(workspace.data)
        processes.end(workspace.data)  # what a killed pipeline left running
        _forget_backups(workspace)
        for lost in () if dry else _reopened(workspace):
            print(f"{lost} is missing; it is made again.")
        # Days of training do not wait for labels: what needs no failed job goes on.
        going = ["--keep-going"] if settings.scale == "paper" else []
        config = {"profile": profile, "workspace": str(workspace.root), **(options or {})}
        write_json(workspace.data / CONFIG_FILE, config)
        call = command(workspace.data / CONFIG_FILE, cores, [*going, *extra])
        with processes.stop_on_signals():
            try:
                code = _followed(call, workspace.data, board, cores)
            except processes.Stopped as stopped:
                processes.end(workspace.data)
                print("Interrupted; what is finished is kept, run the same command to go on.")
                return stopped.code
            except BaseException:
                processes.end(workspace.data)  # nothing goes on that nobody waits for
                raise
    if code and board.failed:
        notebook, *others = (workspace.root / log for log in board.failed)
        also = f"; {len(others)} others failed too: {', '.join(map(str, others))}" if others else ""
        raise NapoError(f"{failure_sentence(notebook)} (The failed notebook: {notebook}{also})")
    if code:
        raise NapoError(complaint(log) or f"Snakemake stopped with code {code}; see {log}.")
    if dry:
        print(f"Nothing was run; the plan is in {log}.")
        return 0
    took = duration(time.monotonic() - began)
    said = f"All done in {took}" if board.finished or board.planned else UP_TO_DATE
    asked, tune = ((options or {}).get(name, "") for name in CONFIG)
    report = workspace.data / edition(settings, "tables", asked, tune) / "report.html"
    print(said + (f": {report}" if report.is_file() else "."), flush=True)
    return 0


def _followed(call: Sequence[str], place: Path, board: Board, cores: int) -> int:
    """Run Snakemake to its end: its words to `pipeline.log`, what the board makes of them here."""
    environment = {**os.environ, "PATH": _path_with_our_programs(), "PYTHONUNBUFFERED": "1"}
    log = place / "pipeline.log"
    with writing(log), open(log, "w", encoding="utf-8") as whole:
        process = processes.start(call, place, environment)
        for line in process.stdout or ():
            whole.write(line)
            whole.flush()
            for shown in board.feed(line.rstrip("\n"), time.monotonic(), cores):
                print(shown, flush=True)
        return process.wait()


def _reopened(workspace: Workspace) -> Iterator[Path]:
    """Files of results that were deleted; their folders are unsealed, so that their stage runs.

    Of results alone: rows and weights are large, and whoever deletes them means it.
    """
    for manifest in sorted(workspace.results.rglob(MANIFEST)):
        lost = missing_files(manifest.parent)
        if lost:
            manifest.unlink()
        yield from (manifest.parent / name for name in lost)


def _forget_backups(workspace: Workspace) -> None:
    """Remove the copies of outputs that a killed Snakemake left.

    When a job fails it puts them back, and whoever deleted a folder since then does not want its
    manifest again.
    """
    for folder in (workspace.data, workspace.figures):
        remove(workspace.root / ".snakemake" / "backups" / folder.relative_to(workspace.root))


def _path_with_our_programs() -> str:
    """PATH with this environment's `papermill` first, however this process was started."""
    return str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m napo.commands.pipeline", description=__doc__)
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    parser.add_argument("--baselines", action="store_true", help="train those of the extra table")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="jobs side by side")
    parser.add_argument("--config", nargs="+", default=[], metavar="NAME=VALUE",
                        help="seeds=0,1, tune=lora: instead of the profile's")  # fmt: skip
    given, extra = parser.parse_known_args(arguments)
    if given.cores < 1:
        parser.error(f"--cores is {given.cores}; give at least one.")
    try:
        options = configured(given.config)
        options |= {"baselines": "true"} if given.baselines else {}
        return run(given.profile, given.workspace, given.cores, options, extra)
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the progress has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())

"""Run the real command of a stage, kill it at random moments, and see what is left.

The reference is a workspace in which every stage ran once without interruption. A killed stage gets
a copy of what was there before it, is killed a number of times, then runs to its end; each final
file must have the reference's bytes, and no finished file or record may be lost on the way.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
PAPERMILL = str(Path(sys.executable).parent / "papermill")
LATEST = 60.0  # seconds until a process that was asked to stop must have ended


@dataclass(frozen=True)
class Stage:
    """A notebook with its parameters: one command that a person or Snakemake gives."""

    name: str
    notebook: str
    parameters: tuple[str, ...] = ()

    def command(self, workspace: Path) -> list[str]:
        """The papermill call."""
        given = [part for pair in self.parameters for part in ("-p", *pair.split("="))]
        return [
            *(PAPERMILL, str(ROOT / "notebooks" / f"{self.notebook}.ipynb")),
            *(str(workspace / "executed.ipynb"), "--no-progress-bar", "-k", "python3"),
            *("-p", "profile", "smoke", "-p", "workspace", str(workspace), *given),
        ]


STAGES = (
    Stage("icon world", "00_icon_world"),
    Stage("build, reference", "01_build_biased_data"),
    Stage("annotate", "02_annotate_noise"),
    Stage("Fig. 3", "03_loss_curves"),
    Stage("Fig. 4", "04_margin_distributions"),
    Stage("train, full", "05_train", ("variant=A1", "seeds=0")),
    Stage("train, LoRA", "05_train", ("variant=A1", "seeds=0", "tune=lora")),
    Stage("evaluate, judge (base)", "06_evaluate", ("variant=base",)),
    Stage("evaluate, judge (A1)", "06_evaluate", ("variant=A1", "seeds=0")),
    Stage("tables, report", "07_results"),
)


@dataclass
class Survival:
    """What happened to one stage.

    Attributes:
        kills: those that came before its end.
        lost: finished files, and lines of growing ones, that were there at a kill and not after.
        different: final files whose bytes are not the reference's.
    """

    name: str
    kills: int = 0
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name:<24} {self.kills:>5} {len(self.lost):>5} {len(self.different):>9}"


HEADER = f"{'stage':<24} {'kills':>5} {'lost':>5} {'different':>9}"


def run(command: list[str], workspace: Path) -> tuple[float, str]:
    """Run a command to its end, which must be a good one; seconds, and what it said."""
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=workspace, env=_environment()
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {said[-3000:]}"
    return time.monotonic() - began, said


def kill(command: list[str], workspace: Path, after: float, rng: random.Random) -> bool:
    """Start a command and end it after so many seconds; False if it had ended by itself.

    How is drawn: everything at once as a machine that stops, only the command or only what it
    started (a notebook's kernel), or a request to stop, by SIGTERM or SIGINT.
    """
    log = workspace / "killed.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            command, cwd=workspace, env=_environment(), stdout=said, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(after)
            assert process.returncode == 0, log.read_text()[-3000:]
            return False
        except subprocess.TimeoutExpired:
            pass
        parent = psutil.Process(process.pid)
        family = parent.children(recursive=True)
        how = rng.choice(["machine", "machine", "command", "children", "SIGTERM", "SIGINT"])
        if how in ("SIGTERM", "SIGINT"):
            process.send_signal(getattr(signal, how))
        for each in {"machine": [parent, *family], "command": [parent], "children": family}.get(
            how, []
        ):
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        if how == "children" and not family:
            process.kill()
        process.wait(LATEST)
    return True


def survive(
    stage: Stage, reference: Reference, workspace: Path, kills: int, rng: random.Random
) -> Survival:
    """Kill a stage's command `kills` times, let it end, and compare; see `Survival`."""
    survival = Survival(stage.name)
    reference.copy_before(stage, workspace)
    command, usual = stage.command(workspace), reference.seconds[stage]
    seen: dict[str, bytes] = {}
    for _ in range(kills):
        # The first third is the start of interpreter, papermill and kernel. What is left to do
        # gets less with every kill, so a kill may come too late and is tried again, earlier.
        for share in (1.0, 0.75, 0.5, 0.35):
            if kill(command, workspace, rng.uniform(0.3, share) * usual, rng):
                break
            reference.copy_before(stage, fresh(workspace))
            seen = {}
        else:
            continue
        survival.kills += 1
        now = contents(workspace)
        survival.lost += lost(seen, now)
        seen = now
    run(command, workspace)
    end = contents(workspace)
    survival.lost += lost(seen, end)
    wanted = reference.after[stage]
    survival.different = sorted(
        name for name in {*wanted, *end} if wanted.get(name) != end.get(name)
    )
    return survival


class Reference:
    """A workspace in which stages ran one after the other, and what it held after each."""

    def __init__(self, workspace: Path, stages: tuple[Stage, ...] = STAGES) -> None:
        self.workspace = workspace
        self.seconds: dict[Stage, float] = {}
        self.before: dict[Stage, dict[str, bytes]] = {}
        self.after: dict[Stage, dict[str, bytes]] = {}
        for stage in stages:
            self.before[stage] = contents(workspace)
            self.seconds[stage], _ = run(stage.command(workspace), workspace)
            self.after[stage] = contents(workspace)

    def copy_before(self, stage: Stage, workspace: Path) -> None:
        """Give a fresh workspace what was there before a stage ran."""
        for name, content in self.before[stage].items():
            path = workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def contents(workspace: Path) -> dict[str, bytes]:
    """The files that are results: no hidden ones, executed notebooks, or logs of a run.

    A checkpoint is no result: it goes when its run is complete. Nor is a draft (`model.part`),
    which is written anew until it is whole and gets its name.
    """
    found = {}
    # os.walk passes by a folder that an orphan of the last kill removes in its last second.
    walks = (os.walk(workspace / top) for top in ("data", "figures"))
    for path in (Path(at, name) for walk in walks for at, _, names in walk for name in names):
        parts = path.relative_to(workspace).parts
        apart = path.suffix == ".log" or "notebooks" in parts
        draft = any(part.endswith(".part") for part in parts)
        if apart or draft or any(part.startswith((".", "checkpoint")) for part in parts):
            continue
        try:
            found["/".join(parts)] = path.read_bytes()
        except FileNotFoundError:  # as above
            continue
    return found


def lost(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """Files of `before` that are gone or changed other than by growing."""
    return [
        name for name, content in before.items() if not after.get(name, b"").startswith(content)
    ]


def check(survivals: list[Survival], kills: int, show: Callable[[str], None]) -> None:
    """Show what happened; nothing may be lost or different after at least so many kills."""
    show("\n".join(map(str, (HEADER, *survivals))))
    lost_files = [name for survival in survivals for name in survival.lost]
    assert lost_files == []
    different = [name for survival in survivals for name in survival.different]
    assert different == []
    assert sum(survival.kills for survival in survivals) >= kills


def fresh(workspace: Path) -> Path:
    """An empty folder at a place."""
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    return workspace


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

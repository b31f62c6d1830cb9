"""The goal of `napo study`: which cells are left, how long they take, and what is out of date."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.noise.study import Job
from napo.progress import duration
from napo.workspace.manifests import MANIFEST

if TYPE_CHECKING:
    from napo.config.study import Study
    from napo.stages.session import Session

# Seconds at the tiny scale on one core, of a training pair in an epoch and of a cell besides: the
# first guess of the estimate, until a cell has finished.
USUAL_PAIR, USUAL_CELL = 0.006, 15.0


@dataclass(frozen=True)
class NoiseStudy:
    """The goal of `napo study`. The fields are its options."""

    grid: str = ""
    seeds: str = ""
    rule: str = "study"

    def config(self, session: Session, profile: str, dry_run: bool) -> dict[str, Any]:
        """The Snakefile's config, with the jobs that have cells left, and a line about them."""
        from napo.stages.study import cells_of, check_cells, study_grid, unfinished
        from napo.stages.study_results import outdated_summary, seconds_of_cells, summary_folder

        jobs = study_grid(session, self.grid, self.seeds)
        if not session.profile.world.reword and self.asks_for_unbiased(session.profile.study):
            print("Unbiased noise is left out: the profile has no world.reword.")
        check_cells(session, cells_of(jobs))
        left = unfinished(session, jobs)
        total, todo = len(cells_of(jobs)), len(cells_of(left))
        cells = f"{total} cell{'s' * (total > 1)}"
        print(f"The study has {cells}, {total - todo} of them finished.", flush=True)
        if todo:
            known = seconds_of_cells(session)
            print(estimate(session.profile.study, left, known, session.profile.scale), flush=True)
        root = session.workspace.root
        again = [session.workspace.study_job(job.name) for job in left]
        if left or outdated_summary(session, self.grid, self.seeds):
            again.append(summary_folder(session, self.grid, self.seeds) / MANIFEST)
        return {
            "profile": profile,
            "workspace": str(root),
            "study": {job.name: ",".join(losses) for job, losses in left.items()},
            "grid": self.grid,
            "study_seeds": self.seeds,
            "again": [path.relative_to(root).as_posix() for path in again if path.is_file()],
        }

    def asks_for_unbiased(self, study: Study) -> bool:
        """Whether the grid has noise that needs other wordings."""
        return self.grid == "full" or any(name.startswith("unbiased") for name in study.noise)

    def page(self, session: Session) -> Path:
        """The sentences."""
        from napo.stages.study_results import summary_folder

        return summary_folder(session, self.grid, self.seeds) / "sentences.md"

    def problems(self, session: Session) -> list[str]:
        """Nothing: a cell that cannot be trained is an error."""
        return []


def estimate(
    study: Study, jobs: Mapping[Job, tuple[str, ...]], known: Mapping[str, list[float]], scale: str
) -> str:
    """How long cells take, in words, from the seconds of finished cells by budget.

    Without a finished cell of a budget, cells of another one count by their epochs; without any,
    the seconds that a cell of the icon world usually takes. Other models have no such numbers.
    """
    means = {budget: sum(taken) / len(taken) for budget, taken in known.items()}
    seconds = 0.0
    for job, losses in jobs.items():
        epochs = study.budgets[job.budget].epochs
        usual = USUAL_CELL + USUAL_PAIR * study.rows * epochs
        if job.budget in means:
            each = means[job.budget]
        elif means:
            other, mean = next(iter(means.items()))
            each = mean * epochs / study.budgets[other].epochs
        else:
            each = usual
        seconds += each * len(losses)
    count = sum(map(len, jobs.values()))
    what = f"{count} cell{'s' * (count > 1)} in {len(jobs)} job{'s' * (len(jobs) > 1)}"
    if not means and scale != "tiny":
        return f"{what}; the first finished cell gives an estimate."
    basis = "finished cells" if means else "the usual time of a cell"
    one = "take" if count > 1 else "takes"
    return f"{what} {one} about {duration(seconds)} one after another (from {basis})."


def train_job(session: Session, job: str, losses: str) -> int:
    """Train the cells of a job. Where this machine has several GPUs, a process with one does it.

    Returns:
        0, or the exit code of that process.

    Raises:
        NapoError: as `napo.stages.cells.run_job`.
    """
    from napo.stages import launch
    from napo.stages.cells import run_job

    with launch.one_gpu(session) as device:
        if device is None:
            run_job(session, Job.read(job), losses.split(","))
            return 0
        command = [sys.executable, "-P", "-m", "napo", "study-job", job, "--losses", losses]
        command += ["--profile", session.profile.argument]
        command += ["--workspace", str(session.workspace.root)]
        visible = list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
        index = int(device.partition(":")[2])
        gpu = {"CUDA_VISIBLE_DEVICES": visible[index] if visible else str(index)}
        return subprocess.run(command, env={**os.environ, **gpu}).returncode

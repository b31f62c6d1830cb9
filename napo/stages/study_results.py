"""What the finished cells of the noise study say: read, compared, written, outdated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.config.profile import study_edition
from napo.config.study import FIGURES
from napo.errors import NapoError
from napo.noise.study import Cell, Job
from napo.stages.session import Session
from napo.stages.study import SECONDS, cell_folder, cells_of, is_finished, study_grid
from napo.workspace.files import read_text, write_text
from napo.workspace.locks import work_on
from napo.workspace.manifests import complete, conflicts, keep_only, missing_files, require, sealed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StudyResults:
    """The finished cells of a grid.

    Attributes:
        outcomes: what each item of a cell gives for each metric (`napo.noise.study.outcomes`).
        steps: a cell's averages of each step (`napo.noise.study.step_averages`).
        missing: the cells that have not run.
    """

    outcomes: dict[Cell, dict[str, pd.Series]]
    steps: dict[Cell, pd.DataFrame]
    missing: list[Cell]


def finished_cells(session: Session, jobs: Mapping[Job, Iterable[str]]) -> list[Cell]:
    """The cells of these jobs that have run."""
    return [cell for cell in cells_of(jobs) if is_finished(cell_folder(session, cell))]


def study_results(session: Session, grid: str = "", seeds: str = "") -> StudyResults:
    """Read the finished cells of a grid; other `grid` and `seeds` than the profile's.

    Raises:
        NapoError: when none has finished, or a file was changed.
    """
    import pandas as pd

    from napo.noise.study import outcomes

    jobs = study_grid(session, grid, seeds)
    finished = finished_cells(session, jobs)
    if not finished:
        raise NapoError(
            f"{session.workspace.study} holds no finished cell of this grid; run make study "
            f"PROFILE={session.profile.argument} first."
        )
    exact = {"float_precision": "round_trip"}
    found, steps = {}, {}
    for cell in finished:
        folder = cell_folder(session, cell)
        require(folder)
        margins = pd.read_csv(folder / "margins.csv", dtype={"id": str}, **exact)
        vlind = folder / "vlind.csv"
        items = pd.read_csv(vlind, **exact) if vlind.is_file() else None
        found[cell] = outcomes(margins, items)
        steps[cell] = pd.read_csv(folder / "steps.csv", **exact)
    missing = [cell for cell in cells_of(jobs) if cell not in found]
    return StudyResults(found, steps, missing)


def cells_table(results: StudyResults) -> pd.DataFrame:
    """One row for each cell: its means of all metrics, and of its last epoch's q and psi.

    Returns:
        Columns budget, kind, rate, loss, seed, the metrics, `trained_psi` (mean psi_sum as trained
        over the last twelfth of the steps), `q_low` and `q_high` (nan where the loss has no q).
    """
    import pandas as pd

    rows = []
    for cell, outcome in results.outcomes.items():
        steps, (budget, noise, seed) = results.steps[cell], cell.job
        last = steps.tail(max(1, len(steps) // 12))
        rows.append(
            {"budget": budget, "kind": noise.kind, "rate": noise.rate, "loss": cell.loss}
            | {"seed": seed, **{name: values.mean() for name, values in outcome.items()}}
            | {"trained_psi": last["psi"].mean()}
            | {"q_low": steps["q"].min(), "q_high": steps["q"].max()}
        )
    return pd.DataFrame(rows)


def summary_settings(session: Session, grid: str, seeds: str) -> dict[str, Any]:
    """What a summary depends on: the cells that it is made from."""
    finished = finished_cells(session, study_grid(session, grid, seeds))
    cells = {cell.name: sealed(cell_folder(session, cell)) for cell in finished}
    study = session.profile.study
    return {"cells": cells, "grid": grid or study.grid, "seeds": seeds or study.seeds}


def summary_folder(session: Session, grid: str = "", seeds: str = "") -> Path:
    """The folder of a summary; other grids and seeds than the profile's have their own."""
    return session.workspace.study / study_edition(session.profile, "summary", grid, seeds)


def outdated_summary(session: Session, grid: str = "", seeds: str = "") -> bool:
    """Whether the summary was made from other cells, or lacks a file."""
    folder = summary_folder(session, grid, seeds)
    if not complete(folder):
        return False
    expected = summary_settings(session, grid, seeds)
    return bool(missing_files(folder) or conflicts(folder, expected))


def write_summary(
    session: Session,
    results: StudyResults,
    summary: pd.DataFrame,
    texts: Iterable[str],
    grid: str = "",
    seeds: str = "",
) -> Path:
    """Write cells.csv (a row for each cell), summary.csv and sentences.md into a sealed folder."""
    folder = summary_folder(session, grid, seeds)
    with work_on(folder, summary_settings(session, grid, seeds), remake=True) as todo:
        if todo:
            files = {
                "cells.csv": cells_table(results).to_csv(index=False, float_format="%.6g"),
                "summary.csv": summary.to_csv(index=False, float_format="%.6g"),
                "sentences.md": "".join(f"- {text}\n" for text in texts),
            }
            for name, text in files.items():
                write_text(folder / name, text)
            keep_only(folder, [folder / name for name in files])
    return folder


def save_study_figures(
    session: Session,
    drawn: Iterable[tuple[Figure, pd.DataFrame]],
    grid: str = "",
    seeds: str = "",
) -> list[Path]:
    """Write the figures of the study, in the order of `FIGURES`, each with its data."""
    from napo.results import figures

    inputs, folder = summary_settings(session, grid, seeds), session.workspace.figures
    paths = []
    for name, (figure, data) in zip(FIGURES, drawn, strict=True):
        name = study_edition(session.profile, name, grid, seeds)
        paths += figures.save(figure, folder, name, data, inputs)
    return paths


def seconds_of_cells(session: Session) -> dict[str, list[float]]:
    """The seconds that each finished cell took, by budget."""
    found: dict[str, list[float]] = {}
    for budget in session.profile.study.budgets:
        for path in (session.workspace.study / budget).glob(f"*/*/*/{SECONDS}"):
            # Only an estimate depends on it, so a damaged file is left out.
            with suppress(NapoError, ValueError):
                found.setdefault(budget, []).append(float(read_text(path)))
    return {budget: seconds for budget, seconds in found.items() if seconds}

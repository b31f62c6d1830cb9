"""Notebook 08's tables: the losses of a grid, one pair as noise, the summary for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.display import HTML

from napo.config.study import LOSSES
from napo.config.variants import LOSSES as FUNCTIONS
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.lab.views import sheet
from napo.noise.study import METRICS, corrupted
from napo.results.verdicts import noise_in_words
from napo.stages.session import Session
from napo.stages.study import TRAIN, places, study_grid
from napo.workspace.manifests import complete

if TYPE_CHECKING:
    import pandas as pd

TOLD = "the true rate"
SHOWN = ("accuracy", "clean", "memorised", "psi", "LP", "CB")


def losses(session: Session, grid: str = "") -> pd.DataFrame:
    """The losses of a grid: name, function, q, weight, and the rate of noise that it is told."""
    import pandas as pd

    names = {loss for losses in study_grid(session, grid, "0").values() for loss in losses}
    rows = []
    for name in (name for name in LOSSES if name in names):
        entry = LOSSES[name]
        takes_q = entry.term.loss == "napo"
        q = entry.term.q if entry.term.q is not None else entry.q_rule
        told = TOLD if entry.told else entry.term.label_smoothing
        rows.append(
            {
                "loss": name,
                "in words": entry.title,
                "function": FUNCTIONS[entry.term.loss].function.rpartition(":")[2],
                "q": q if takes_q else "",
                "weight": "of each pair" if entry.gamma == "per-pair" else "1",
                "told": told if entry.term.loss in ("cdpo", "rdpo") else "",
            }
        )
    return pd.DataFrame(rows).set_index("loss")


def noise_example(session: Session, grid: str = "", row: int = 0) -> HTML:
    """A training pair, the `row`-th, clean and under each kind of noise of a grid.

    Raises:
        NapoError: if the pairs have not been made.
    """
    import pandas as pd

    from napo.results.report import Sheet

    folder = session.workspace.study_pairs
    if not complete(folder):
        raise NapoError(
            f"{folder} is missing; run make study PROFILE={session.profile.argument} first."
        )
    pairs = load_rows(folder / "rows")
    pair = pairs[places(pairs, TRAIN)[row]]
    kinds = dict.fromkeys(job.noise.kind for job in study_grid(session, grid, "0"))
    shown = {"clean": pair, **{kind: corrupted(pair, kind) for kind in kinds}}
    names = ["question", "chosen", "rejected"]
    frame = pd.DataFrame({kind: {n: row[n] for n in names} for kind, row in shown.items()}).T
    return sheet(Sheet(f"Training pair {row}", frame))


def summary_to_read(summary: pd.DataFrame) -> pd.DataFrame:
    """The study's summary for reading: a row for each noise and loss, a column for each metric.

    A cell is such as "74.0 · −1.2 [−3.0, +0.4] not decided"; the baseline has its value only.
    """
    cells = []
    for row in summary.itertuples():
        digits = 2 if METRICS[row.metric].unit == "nats" else 1
        text = f"{row.value:.{digits}f}"
        if row.difference == row.difference:  # not nan
            ends = (row.difference, row.difference_low, row.difference_high)
            change, low, high = (f"{end:+.{digits}f}".replace("-", "−") for end in ends)
            text += f" · {change} [{low}, {high}] {row.verdict}".rstrip()
        cells.append(text)
    noises = zip(summary["kind"], summary["rate"], strict=True)
    shown = summary.assign(
        noise=[noise_in_words(kind, rate) for kind, rate in noises],
        cell=cells,
        metric=[METRICS[name].title for name in summary["metric"]],
    )
    shown = shown[
        summary["metric"].isin(SHOWN) & ((summary["rate"] > 0) | (summary["kind"] == "flip"))
    ]
    by = ["budget", "noise", "loss"]
    order = [METRICS[name].title for name in SHOWN if METRICS[name].title in set(shown["metric"])]
    table = shown.pivot_table(
        index=by, columns="metric", values="cell", aggfunc="first", sort=False
    )
    return table[order].fillna("–")

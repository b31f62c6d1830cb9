"""Training curves: margins, q and gamma over steps, from the per-example records of runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from napo.results.figures.style import (
    INK,
    PAGE,
    TERM_LOOKS,
    new_figure,
    settle,
    sort_variants,
    style,
)

BLOCKS = 60  # points of a line; more steps are averaged in equal blocks
QUANTITIES = {  # suffix of the records' column -> (title, range)
    "psi_sum": (r"margin $\psi_\Sigma$", None),
    "psi_mean": (r"margin $\psi_\mu$", None),
    "q": (r"robustness $q$", (0.0, 1.03)),
    "gamma": (r"weight $\gamma$", (0.0, 1.03)),
}


def per_step(records: pd.DataFrame) -> pd.DataFrame:
    """Averages of the records over the examples of each step.

    A row for each variant, seed and step, sorted; the numeric columns of the records.
    """
    keys = [name for name in ("variant", "seed", "step") if name in records]
    numbers = records.select_dtypes("number").columns.difference(keys, sort=False)
    return records.groupby(keys, sort=True)[list(numbers)].mean().reset_index()


def training_curves(records: pd.DataFrame) -> Figure:
    """Reward margins, q and gamma of each term over training; a row of panels for each variant.

    A line is the mean over seeds; its band reaches from the lowest seed to the highest. The weight
    of a single term is left out. `records` are per example, or their averages (`per_step`).
    """
    steps = per_step(records)
    variants = sort_variants(steps["variant"].unique()) if "variant" in steps else [""]
    shown = [suffix for suffix in QUANTITIES if terms_of(steps, suffix)]
    if len(terms_of(steps, "gamma")) == 1:
        shown.remove("gamma")
    drawn: dict[str, None] = {}
    with style():
        figure = new_figure(PAGE, 0.35 + 1.75 * len(variants))
        panels = figure.subplots(len(variants), len(shown), squeeze=False, sharex="row")
        for row, name in zip(panels, variants, strict=True):
            part = steps[steps["variant"] == name] if name else steps
            for ax, suffix in zip(row, shown, strict=True):
                drawn |= dict.fromkeys(_draw(ax, part, suffix))
            if name:
                row[0].set_ylabel(str(name), weight="bold")
        for ax, suffix in zip(panels[0], shown, strict=True):
            ax.set_title(QUANTITIES[suffix][0])
        size = -(-part["step"].nunique() // BLOCKS)
        for ax in panels[-1]:
            ax.set_xlabel("optimiser step" if size <= 1 else f"step (means of up to {size})")
        handles = [Line2D([], [], **look(term), label=words_of(term)) for term in drawn]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        return settle(figure)


def pretraining(log: pd.DataFrame) -> Figure:
    """The loss of the base model's pretraining; a panel for each `stage` of the log."""
    stages = list(log["stage"].unique()) if "stage" in log else [""]
    with style():
        figure = new_figure(PAGE, 1.9)
        panels = figure.subplots(1, len(stages), squeeze=False)[0]
        for ax, stage in zip(panels, stages, strict=True):
            part = log[log["stage"] == stage] if stage else log
            ax.plot(part["step"], part["loss"], color=INK)
            ax.set(xlabel="step", xlim=(0, None), ylim=(0, None))
            ax.set_title(f"{stage} stage" if stage else "pretraining")
        panels[0].set_ylabel("training loss")
        return settle(figure)


def _draw(ax: Axes, steps: pd.DataFrame, suffix: str) -> list[str]:
    """Draw one quantity of one variant; returns the terms that were drawn."""
    terms, limits = terms_of(steps, suffix), QUANTITIES[suffix][1]
    weights = steps[[f"{term}_gamma" for term in terms]] if suffix == "gamma" else pd.DataFrame()
    # Weights of 0 and 1 only say which term was drawn, as in the variant "random".
    picked = len(weights.columns) > 1 and bool(
        weights.isin((0, 1)).all(axis=None) and (weights.sum(axis=1) == 1).all()
    )
    if not terms or picked:
        text = "one term a step,\nat random" if picked else "none"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=INK,
                alpha=0.5)  # fmt: skip
        ax.set_yticks([])
        return []
    for term in terms:
        line = steps.pivot_table(
            index="step", columns="seed" if "seed" in steps else None, values=f"{term}_{suffix}"
        )
        if len(line) > BLOCKS:
            block = np.arange(len(line)) * BLOCKS // len(line)
            middle = pd.Series(line.index, index=line.index).groupby(block).mean()
            line = line.groupby(block).mean().set_index(pd.Index(middle, name="step"))
        ax.plot(line.index, line.mean(axis=1), **look(term), label=words_of(term))
        if line.shape[1] > 1:
            low, high, colour = line.min(axis=1), line.max(axis=1), look(term)["color"]
            ax.fill_between(line.index, low, high, color=colour, alpha=0.15, linewidth=0)
    if limits is None:
        ax.axhline(0, color=INK, linewidth=0.5, alpha=0.4, zorder=0)
    else:
        ax.set(ylim=limits, yticks=(0, 0.5, 1))
    ax.margins(x=0.01)
    return terms


def terms_of(steps: pd.DataFrame, suffix: str) -> list[str]:
    """The terms that have a quantity; the paper's terms first, in its order."""
    end = f"_{suffix}"
    columns = [name for name in steps.columns if name.endswith(end) and steps[name].notna().any()]
    terms, order = [name.removesuffix(end) for name in columns], list(TERM_LOOKS)
    return sorted(terms, key=lambda term: order.index(term) if term in order else len(order))


def look(term: str) -> dict[str, object]:
    """Colour and line style of a term."""
    colour, line = TERM_LOOKS.get(term, (INK, "-"))
    return {"color": colour, "linestyle": line}


def words_of(term: str) -> str:
    """A term's name in the legend, such as "language-biased"."""
    return term.replace("_biased", "-biased").replace("_", " ")

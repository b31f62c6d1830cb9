"""Training curves: margins, q and gamma over steps, from the per-example records of runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napo.config.variants import VARIANTS
from napo.results.figures.style import (
    INK,
    PAGE,
    TERM_COLOURS,
    TERM_LINES,
    new_figure,
    settle,
    style,
)

BLOCKS = 60  # points of a line; more steps than that are averaged in equal blocks
QUANTITIES = {  # suffix of the records' column -> (title, range)
    "psi_sum": (r"margin $\psi_\Sigma$", None),
    "psi_mean": (r"margin $\psi_\mu$", None),
    "q": (r"robustness $q$", (0.0, 1.03)),
    "gamma": (r"weight $\gamma$", (0.0, 1.03)),
}


def per_step(records: pd.DataFrame) -> pd.DataFrame:
    """Averages of the records over the examples of each step.

    Args:
        records: per-example records with `step` and, for several runs, `variant` and `seed`.

    Returns:
        A row for each variant, seed and step, sorted; the columns of the records that are numbers.
    """
    keys = [name for name in ("variant", "seed", "step") if name in records]
    numbers = records.select_dtypes("number").columns.difference(keys, sort=False)
    return records.groupby(keys, sort=True)[list(numbers)].mean().reset_index()


def training_curves(records: pd.DataFrame) -> Figure:
    """Reward margins, q and gamma of each term over training; a row of panels for each variant.

    A line is the mean over seeds, its band reaches from the lowest seed to the highest. The weight
    of a term that stands alone is left out.

    Args:
        records: per-example records (or their averages, `per_step`) with `step`; `variant` and
            `seed` tell several runs apart.
    """
    steps = per_step(records)
    variants = list(dict.fromkeys(steps["variant"])) if "variant" in steps else [""]
    order = {name: at for at, name in enumerate(("base", *VARIANTS))}
    variants.sort(key=lambda name: order.get(name, len(order)))
    shown = [suffix for suffix in QUANTITIES if _terms(steps, suffix)]
    if len(_terms(steps, "gamma")) == 1 and "gamma" in shown:
        shown.remove("gamma")  # one term has nothing to be weighed against
    with style():
        figure = new_figure(PAGE, 0.35 + 1.75 * len(variants))
        panels = figure.subplots(len(variants), len(shown), squeeze=False, sharex="row")
        used: dict[str, None] = {}
        for row, name in enumerate(variants):
            part = steps[steps["variant"] == name] if name else steps
            for column, suffix in enumerate(shown):
                ax = panels[row, column]
                used |= dict.fromkeys(_panel(ax, part, suffix))
                if row == 0:
                    ax.set_title(QUANTITIES[suffix][0])
                if row == len(variants) - 1:
                    ax.set_xlabel(_steps(part))
            if name:
                panels[row, 0].set_ylabel(str(name), weight="bold")
        _legend(figure, list(used))
        return settle(figure)


def pretraining(log: pd.DataFrame) -> Figure:
    """The loss of the base model's pretraining; a panel for each stage.

    Args:
        log: columns `step`, `loss` and, where there are several, `stage`.
    """
    stages = list(dict.fromkeys(log["stage"])) if "stage" in log else [""]
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


def _terms(steps: pd.DataFrame, suffix: str) -> list[str]:
    """Terms that have this quantity, the paper's order first."""
    end = f"_{suffix}"
    found = [
        name.removesuffix(end)
        for name in steps.columns
        if name.endswith(end) and steps[name].notna().any()
    ]
    order = list(TERM_COLOURS)
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def _panel(ax: Axes, steps: pd.DataFrame, suffix: str) -> list[str]:
    """Draw one quantity of one variant; the terms it drew."""
    terms = _terms(steps, suffix)
    ceiling = QUANTITIES[suffix][1]
    drawn = suffix == "gamma" and _one_a_step(steps[[f"{term}_gamma" for term in terms]])
    if not terms or drawn:
        said = "one term a step,\nat random" if drawn else "none"
        ax.text(0.5, 0.5, said, transform=ax.transAxes, ha="center", va="center", color=INK,
                alpha=0.5)  # fmt: skip
        ax.set_yticks([])
        return []
    for term in terms:
        line = steps.pivot_table(
            index="step", columns="seed" if "seed" in steps else None, values=f"{term}_{suffix}"
        )
        line = _blocks(line)
        look = {"color": TERM_COLOURS.get(term, INK), "linestyle": TERM_LINES.get(term, "-")}
        ax.plot(line.index, line.mean(axis=1), **look, label=_name(term))
        if line.shape[1] > 1:
            low, high = line.min(axis=1), line.max(axis=1)
            ax.fill_between(line.index, low, high, color=look["color"], alpha=0.15, linewidth=0)
    if ceiling is None:
        ax.axhline(0, color=INK, linewidth=0.5, alpha=0.4, zorder=0)
    if ceiling is not None:
        ax.set(ylim=ceiling, yticks=(0, 0.5, 1))
    ax.margins(x=0.01)
    return terms


def _one_a_step(weights: pd.DataFrame) -> bool:
    """Whether the weights only say which of several terms was drawn, as in the variant random."""
    return len(weights.columns) > 1 and bool(
        weights.isin((0, 1)).all(axis=None) and (weights.sum(axis=1) == 1).all()
    )


def _blocks(line: pd.DataFrame) -> pd.DataFrame:
    """Long runs averaged in equal blocks of steps, so that a line stays a line."""
    if len(line) <= BLOCKS:
        return line
    block = np.arange(len(line)) * BLOCKS // len(line)
    middle = pd.Series(line.index, index=line.index).groupby(block).mean()
    blocks = line.groupby(block).mean()
    return blocks.set_index(pd.Index(middle, name="step"))


def _steps(steps: pd.DataFrame) -> str:
    """The label of the horizontal axis: it says so where a point is a mean of several steps."""
    size = -(-steps["step"].nunique() // BLOCKS)
    return "optimiser step" if size <= 1 else f"step (means of up to {size})"


def _name(term: str) -> str:
    return term.replace("_biased", "-biased").replace("_", " ")


def _legend(figure: Figure, terms: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=TERM_COLOURS.get(term, INK), linestyle=TERM_LINES.get(term, "-"),
               label=_name(term))
        for term in terms
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))

"""Training curves: loss, margins, q and gamma over steps, from the per-example records of runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from napo.results.figures.style import (
    FAINT,
    INK,
    PAGE,
    TERM_LOOKS,
    new_figure,
    settle,
    sort_variants,
    style,
    variant_colour,
)

BLOCKS = 60  # points of a line; more steps are averaged in equal blocks
COLUMNS = 3  # panels side by side
LOSS = "loss"  # the weighted sum of the terms (Eq. 14)
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
    """Loss, reward margins, q and gamma over training: a panel for each, all variants in it.

    A line is the mean over seeds. A variant alone has a colour for each term, and bands from the
    lowest seed to the highest. Several variants have a colour each, and terms differ by the line.
    The weight of a single term is left out. `records` are per example, or their averages
    (`per_step`).
    """
    steps = per_step(records)
    names = sort_variants(steps["variant"].unique()) if "variant" in steps else [""]
    parts = {name: steps[steps["variant"] == name] if name else steps for name in names}
    shown = [LOSS] if LOSS in steps else []
    shown += [suffix for suffix in QUANTITIES if terms_of(steps, suffix)]
    if len(terms_of(steps, "gamma")) == 1:
        shown.remove("gamma")
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    drawn: dict[str, None] = {}
    with style():
        figure = new_figure(PAGE, 0.45 + 0.15 * (len(names) // 7) + 1.6 * rows)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax, quantity in zip(panels, shown, strict=False):
            for name, part in parts.items():
                drawn |= dict.fromkeys(_draw(ax, part, quantity, name if names[1:] else ""))
            _finish(ax, quantity)
        for ax in panels[len(shown) :]:
            ax.remove()
        size = max(-(-part["step"].nunique() // BLOCKS) for part in parts.values())
        for ax in panels[: len(shown)][-columns:]:
            ax.set_xlabel("optimiser step" if size <= 1 else f"step (means of up to {size})")
        handles = _legend(names, list(drawn))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(7, len(handles)))
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


def _draw(ax: Axes, steps: pd.DataFrame, quantity: str, variant: str) -> list[str]:
    """Draw one quantity of one variant; returns the terms that were drawn.

    `variant` names it among several, which have a colour each; empty: it is alone.
    """
    if quantity == LOSS:
        looks = {"color": variant_colour(variant) if variant else FAINT, "label": variant or LOSS}
        _line(ax, steps, LOSS, looks, band=not variant)
        return []
    terms = terms_of(steps, quantity)
    if quantity == "gamma" and _picked(steps, terms):
        return []
    for term in terms:
        label = f"{variant}, {words_of(term)}" if variant else words_of(term)
        colour = {"color": variant_colour(variant)} if variant else {}
        _line(ax, steps, f"{term}_{quantity}", {**look(term), **colour, "label": label},
              band=not variant)  # fmt: skip
    return terms


def _picked(steps: pd.DataFrame, terms: list[str]) -> bool:
    """Whether weights of 0 and 1 only say which term a step drew, as in the variant "random"."""
    weights = steps[[f"{term}_gamma" for term in terms]]
    only = weights.isin((0, 1)).all(axis=None) and (weights.sum(axis=1) == 1).all()
    return len(terms) > 1 and bool(only)


def _line(ax: Axes, steps: pd.DataFrame, column: str, looks: dict[str, object], band: bool) -> None:
    """The mean of a column over seeds; the band reaches from the lowest seed to the highest."""
    line = steps.pivot_table(
        index="step", columns="seed" if "seed" in steps else None, values=column
    )
    if len(line) > BLOCKS:
        block = np.arange(len(line)) * BLOCKS // len(line)
        middle = pd.Series(line.index, index=line.index).groupby(block).mean()
        line = line.groupby(block).mean().set_index(pd.Index(middle, name="step"))
    ax.plot(line.index, line.mean(axis=1), **looks)
    if band and line.shape[1] > 1:
        low, high = line.min(axis=1), line.max(axis=1)
        ax.fill_between(line.index, low, high, color=looks["color"], alpha=0.15, linewidth=0)


def _finish(ax: Axes, quantity: str) -> None:
    """Title and limits of a panel; words in place of weights that only pick a term."""
    title, limits = QUANTITIES.get(quantity, (r"loss $\mathcal{L}$", None))
    ax.set_title(title)
    ax.margins(x=0.01)
    if not ax.lines:
        ax.text(0.5, 0.5, "one term a step,\nat random", transform=ax.transAxes, ha="center",
                va="center", color=INK, alpha=0.5)  # fmt: skip
        ax.set(xticks=[], yticks=[])
    elif limits is not None:
        ax.set(ylim=limits, yticks=(0, 0.5, 1))
    elif quantity != LOSS:
        ax.axhline(0, color=INK, linewidth=0.5, alpha=0.4, zorder=0)


def _legend(variants: list[str], terms: list[str]) -> list[Line2D]:
    """A colour for each of several variants, and a line for each term."""
    if len(variants) == 1:
        return [Line2D([], [], **look(term), label=words_of(term)) for term in terms]
    colours = [Line2D([], [], color=variant_colour(name), label=name) for name in variants]
    lines = [
        Line2D([], [], **{**look(term), "color": FAINT}, label=words_of(term)) for term in terms
    ]
    return colours + lines


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

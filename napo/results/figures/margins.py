"""Fig. 4: log-prob margins of noise and noise-free responses, and how well they separate them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napo.config.variants import BIASED
from napo.noise.separation import ENOUGH, LEFT_OUT, STATISTICS, headline, separation
from napo.results.figures.style import (
    BLUE,
    COLUMN,
    FAINT,
    INK,
    ORANGE,
    PAGE,
    new_figure,
    settle,
    style,
)

LABELS = {  # label -> (name in the legend, colour, hatch)
    "biased": ("biased (noise-free)", BLUE, ""),
    "unbiased": ("unbiased (noise)", ORANGE, "////"),
}
ROOM = 0.74  # share of a panel's height that is drawn in; words stand above it
AXIS = {
    "sum": r"log-prob margin  $\log\pi(y_w|x)-\log\pi(y_b|x)$",
    "mean": "average log-prob margin (per token)",
}


def fig4(margins: pd.DataFrame, *, bins: int = 24, seed: int = 0, width: float = PAGE) -> Figure:
    """Fig. 4: margins of noise against noise-free, summed and per token, for both biases.

    Each panel: histogram with density, a rug, medians, and the AUROC of the margin with its 95 %
    bootstrap interval. Where groups are known the figure shows questions; descriptions are reported
    apart by `napo.noise.separation`.

    Args:
        margins: as `napo.noise.samples.response_margins` returns them.
        bins: of each panel's histogram.
        seed: of the bootstrap.
        width: inches; `PAGE` draws the paper's 2 x 2, `COLUMN` four panels in a column.
    """
    wide = width > COLUMN
    facts = separation(margins, seed=seed)
    shown = headline(facts) if not facts.empty else facts
    with style():
        figure = new_figure(width, 4.1 if wide else 7.9)
        panels = figure.subplots(2, 2) if wide else figure.subplots(4, 1).reshape(2, 2)
        for row, statistic in enumerate(STATISTICS):
            for column, kind in enumerate(BIASED):
                ax = panels[row, column]
                fact, without = (_fact(shown, kind, statistic, kept) for kept in (True, False))
                _panel(ax, _of(margins, kind, fact), STATISTICS[statistic], bins)
                _say(ax, fact, without)
                ax.set_xlabel(AXIS[statistic])
                if row == 0 or not wide:
                    only = fact is not None and fact["group"] != "all"
                    name = kind.replace("_", "-").capitalize() + " responses"
                    ax.set_title(f"{name}, {fact['group']}s" if only else name)
        for ax in panels[:, 0] if wide else panels.flat:
            ax.set_ylabel("density")
        _legend(figure, columns=4 if wide else 2)
        return settle(figure)


def _fact(shown: pd.DataFrame, kind: str, statistic: str, kept: bool) -> dict[str, Any] | None:
    if shown.empty:
        return None
    wanted = (shown["kind"] == kind) & (shown["statistic"] == statistic)
    rows = shown[wanted & (shown["equal_kept"] == kept)].to_dict("records")
    return rows[0] if rows else None


def _of(margins: pd.DataFrame, kind: str, fact: dict[str, Any] | None) -> pd.DataFrame:
    """The responses that a panel draws: the same ones that its numbers are about."""
    part = margins[(margins["kind"] == kind) & (margins["group"] != LEFT_OUT)]
    if fact is not None and fact["group"] != "all":
        part = part[part["group"] == fact["group"]]
    return part


def _panel(ax: Axes, part: pd.DataFrame, column: str, bins: int) -> None:
    values = {label: part.loc[part["label"] == label, column].to_numpy(float) for label in LABELS}
    pooled = np.concatenate(list(values.values()))
    if not len(pooled):
        ax.set(yticks=[], xticks=[])
        ax.text(0.5, 0.5, "nothing labelled", transform=ax.transAxes, ha="center", color=FAINT)
        return
    span = max(np.ptp(pooled), 1e-6)
    edges = np.linspace(pooled.min() - 0.06 * span, pooled.max() + 0.06 * span, bins + 1)
    tops: list[float] = []
    for at, (label, (name, colour, hatch)) in enumerate(LABELS.items()):
        mine = values[label]
        if not len(mine):
            continue
        heights, _ = np.histogram(mine, edges, density=True)
        tops.append(heights.max())
        ax.stairs(heights, edges, fill=True, facecolor=colour, alpha=0.28, edgecolor="none")
        ax.stairs(heights, edges, fill=True, facecolor="none", edgecolor=colour, hatch=hatch,
                  linewidth=0.5, alpha=0.75, label=name)  # fmt: skip
        grid = np.linspace(edges[0], edges[-1], 300)
        density = _density(mine, grid, narrowest=(edges[1] - edges[0]) / 2)
        if density is not None:
            ax.plot(grid, density, color=colour, linewidth=1.3)
            tops.append(density.max())
        ax.axvline(np.median(mine), color=colour, linewidth=1.1, linestyle=_dash(label), ymax=ROOM)
        low = -0.035 - 0.045 * at  # rugs under the axis, one level a label
        ax.plot(mine, np.full(len(mine), low), "|", color=colour, markersize=4,
                markeredgewidth=0.5, transform=ax.get_xaxis_transform(), clip_on=False)  # fmt: skip
    ax.set(xlim=(edges[0], edges[-1]))
    ax.tick_params(axis="x", pad=7)
    ax.locator_params(axis="y", nbins=4)
    ax.set_ylim(0, max(tops) / ROOM)


def _dash(label: str) -> tuple[int, tuple[float, ...]]:
    return (0, (4, 1.5)) if label == "biased" else (0, (1.2, 1.2))


def _density(values: np.ndarray, grid: np.ndarray, narrowest: float) -> np.ndarray | None:
    """A Gaussian kernel density; none for values that do not vary.

    Its kernel has Scott's width, but not less than `narrowest`: a curve that is finer than the bars
    beside it would leave the panel, or fall between the points it is drawn at.
    """
    from scipy.stats import gaussian_kde

    if len(values) < 3 or np.ptp(values) < 1e-9:
        return None
    spread = values.std(ddof=1)
    scott = len(values) ** (-1 / 5) * spread
    return gaussian_kde(values, max(scott, narrowest) / spread)(grid)


def _say(ax: Axes, fact: dict[str, Any] | None, without: dict[str, Any] | None) -> None:
    """AUROC and counts in the panel's upper corner, above what is drawn."""
    if fact is None:
        return
    look = {"transform": ax.transAxes, "ha": "right", "va": "top"}
    counts = f"{fact['n'] - fact['noise']} noise-free, {fact['noise']} noise"
    by_definition = fact["noise_equal"] == fact["noise"]  # margins of 0: nothing can order them
    weight = "normal" if by_definition else "bold"
    ax.text(0.99, 1.0, _area(fact), fontsize=7.5, color=INK, weight=weight, **look)
    ax.text(0.99, 0.915, counts, fontsize=7, color=FAINT, **look)
    if fact["equal"] and without is not None:
        rest = f"without the {fact['equal']} equal to $y_w$: {_area(without)}"
        ax.text(0.99, 0.84, rest, fontsize=7, color=FAINT, **look)


def _area(fact: dict[str, Any]) -> str:
    if np.isnan(fact["auroc"]):
        return "AUROC not defined"
    if np.isnan(fact["auroc_low"]):
        apart = fact["auroc"] in (0, 1) and min(fact["noise"], fact["n"] - fact["noise"]) >= ENOUGH
        why = "fully apart" if apart else "too few for an interval"
        return f"AUROC {fact['auroc']:.2f} ({why})"
    return f"AUROC {fact['auroc']:.2f} [{fact['auroc_low']:.2f}, {fact['auroc_high']:.2f}]"


def _legend(figure: Figure, columns: int) -> None:
    """One legend for all panels, drawn even where a panel lacks a label."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for label, (name, colour, hatch) in LABELS.items():
        handles.append(
            Patch(facecolor=(*_rgb(colour), 0.3), edgecolor=colour, hatch=hatch, label=name)
        )
        handles.append(
            Line2D([], [], color=colour, linestyle=_dash(label), linewidth=1.1, label="its median")
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.4)


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)

"""Fig. 4: log-prob margins of noise and noise-free responses, and how well they separate them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
DASHES = {"biased": (0, (4, 1.5)), "unbiased": (0, (1.2, 1.2))}  # of the medians
BINS = 24  # of each panel's histogram
ROOM = {True: 0.74, False: 0.6}  # share of a wide or narrow panel for curves; text stands above
LINE = 9.0  # points between two lines of that text
AXIS = {
    "sum": r"log-prob margin  $\log\pi(y_w|x)-\log\pi(y_b|x)$",
    "mean": "average log-prob margin (per token)",
}


def fig4(margins: pd.DataFrame, width: float = PAGE) -> Figure:
    """Fig. 4: margins of noise and noise-free responses, summed and per token, for both biases.

    Each panel: histogram with density, a rug, medians, and the AUROC of the margin with its 95 %
    bootstrap interval. Where groups are known the figure shows questions only; descriptions are
    reported by `napo.noise.separation`.

    Args:
        margins: from `napo.noise.samples.response_margins`.
        width: inches; `PAGE` draws the paper's 2 x 2, `COLUMN` four panels in a column.
    """
    wide = width > COLUMN
    records = headline(separation(margins)).to_dict("records")
    facts = {(fact["kind"], fact["statistic"], fact["equal_kept"]): fact for fact in records}
    with style():
        figure = new_figure(width, 4.1 if wide else 7.2)  # a column of CVPR has 8.9 inches
        panels = figure.subplots(2, 2) if wide else figure.subplots(4, 1).reshape(2, 2)
        for row, statistic in enumerate(STATISTICS):
            for column, kind in enumerate(BIASED):
                ax = panels[row, column]
                part = margins[(margins["kind"] == kind) & (margins["group"] != LEFT_OUT)]
                title = kind.replace("_", "-").capitalize() + " responses"
                fact = facts.get((kind, statistic, True))
                if fact and fact["group"] != "all":
                    part = part[part["group"] == fact["group"]]
                    title = f"{title}, {fact['group']}s"
                _draw(ax, part, STATISTICS[statistic], ROOM[wide])
                if fact:
                    _annotate(ax, fact, facts.get((kind, statistic, False)))
                ax.set_xlabel(AXIS[statistic])
                if row == 0 or not wide:
                    ax.set_title(title)
        for ax in panels[:, 0] if wide else panels.flat:
            ax.set_ylabel("density")
        handles: list[Any] = []  # complete even where a panel lacks a label
        for label, (name, colour, hatch) in LABELS.items():
            face = (*to_rgb(colour), 0.3)
            look = {"color": colour, "linestyle": DASHES[label], "linewidth": 1.1}
            handles.append(Patch(facecolor=face, edgecolor=colour, hatch=hatch, label=name))
            handles.append(Line2D([], [], **look, label="its median"))
        columns = 4 if wide else 2
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.4)
        return settle(figure)


def _draw(ax: Axes, part: pd.DataFrame, column: str, room: float) -> None:
    """Draw the histograms, densities, medians and rugs of one panel."""
    values = {label: part.loc[part["label"] == label, column].to_numpy(float) for label in LABELS}
    pooled = np.concatenate(list(values.values()))
    if not len(pooled):
        ax.set(yticks=[], xticks=[])
        ax.text(0.5, 0.5, "nothing labelled", transform=ax.transAxes, ha="center", color=FAINT)
        return
    span = max(np.ptp(pooled), 1e-6)
    edges = np.linspace(pooled.min() - 0.06 * span, pooled.max() + 0.06 * span, BINS + 1)
    tops: list[float] = []
    for index, (label, (name, colour, hatch)) in enumerate(LABELS.items()):
        margins = values[label]
        if not len(margins):
            continue
        heights, _ = np.histogram(margins, edges, density=True)
        tops.append(heights.max())
        ax.stairs(heights, edges, fill=True, facecolor=colour, alpha=0.28, edgecolor="none")
        ax.stairs(heights, edges, fill=True, facecolor="none", edgecolor=colour, hatch=hatch,
                  linewidth=0.5, alpha=0.75, label=name)  # fmt: skip
        if len(margins) >= 3 and np.ptp(margins) >= 1e-9:
            grid = np.linspace(edges[0], edges[-1], 300)
            curve = _density(margins, grid, narrowest=(edges[1] - edges[0]) / 2)
            ax.plot(grid, curve, color=colour, linewidth=1.3)
            tops.append(curve.max())
        ax.axvline(np.median(margins), color=colour, linewidth=1.1, linestyle=DASHES[label],
                   ymax=room)  # fmt: skip
        low = -0.035 - 0.045 * index  # rugs are under the axis, one level for each label
        ax.plot(margins, np.full(len(margins), low), "|", color=colour, markersize=4,
                markeredgewidth=0.5, transform=ax.get_xaxis_transform(), clip_on=False)  # fmt: skip
    ax.set(xlim=(edges[0], edges[-1]))
    ax.tick_params(axis="x", pad=7)
    ax.locator_params(axis="y", nbins=4)
    ax.set_ylim(0, max(tops) / room)


def _density(values: np.ndarray, grid: np.ndarray, narrowest: float) -> np.ndarray:
    """A Gaussian kernel density with Scott's width, but no finer than `narrowest`: the bars."""
    from scipy.stats import gaussian_kde

    spread = values.std(ddof=1)
    scott = len(values) ** (-1 / 5) * spread
    return gaussian_kde(values, max(scott, narrowest) / spread)(grid)


def _annotate(ax: Axes, fact: dict[str, Any], without: dict[str, Any] | None) -> None:
    """Write AUROC and counts into the panel's upper corner."""
    lines = [(_auroc_words(fact), 7.5, INK)]
    lines.append((f"{fact['n'] - fact['noise']} noise-free, {fact['noise']} noise", 7, FAINT))
    if fact["equal"] and without:
        rest = f"without the {fact['equal']} equal to $y_w$: {_auroc_words(without)}"
        lines.append((rest, 7, FAINT))
    for number, (text, size, colour) in enumerate(lines):
        ax.annotate(text, (0.99, 1.0), (0, -LINE * number), "axes fraction", "offset points",
                    fontsize=size, color=colour, ha="right", va="top")  # fmt: skip


def _auroc_words(fact: dict[str, Any]) -> str:
    """Such as "AUROC 0.83 [0.74, 0.91]", or why there is no interval."""
    if np.isnan(fact["auroc"]):
        return "AUROC not defined"
    if np.isnan(fact["auroc_low"]):
        apart = fact["auroc"] in (0, 1) and min(fact["noise"], fact["n"] - fact["noise"]) >= ENOUGH
        reason = "fully apart" if apart else "too few for an interval"
        return f"AUROC {fact['auroc']:.2f} ({reason})"
    return f"AUROC {fact['auroc']:.2f} [{fact['auroc_low']:.2f}, {fact['auroc_high']:.2f}]"

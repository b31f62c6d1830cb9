"""Every variant beside the base model, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from napo.results.compact import in_words
from napo.results.figures.style import (
    FAINT,
    INK,
    PAGE,
    new_figure,
    settle,
    sort_variants,
    style,
    variant_colour,
)

HALVES = {"true": 5, "false": 4}  # matplotlib's carets: right for true statements, left for false
BELOW = 0.3  # of a row: halves are drawn lower, so that the value's dot does not hide them


def comparison(summary: pd.DataFrame) -> Figure:
    """A value and its 95 % interval for each variant; a panel for each metric, a line for the base.

    Args:
        summary: columns `variant` ("base" among them if it ran), `metric`, `value`, `low`, `high`
            (missing where there is no interval). Panels come in the order of the metrics. A metric
            called "LP true" or "LP false" is a half of LP (VLind-Bench asks about a true and a
            false statement): a small mark in LP's panel.
    """
    names = list(summary["metric"].unique())
    halves = {(metric, half): f"{metric} {half}" for metric in names for half in HALVES}
    halves = {key: name for key, name in halves.items() if name in names}
    metrics = [name for name in names if name not in halves.values()]
    variants = sort_variants(summary["variant"].unique())
    with style():
        figure = new_figure(PAGE, (0.55 + 0.175 * max(3, len(variants))) + 0.25)
        panels = figure.subplots(1, max(1, len(metrics)), squeeze=False, sharey=True)[0]
        for ax, metric in zip(panels, metrics, strict=False):
            _draw(ax, summary[summary["metric"] == metric].set_index("variant"), variants)
            for half, marker in HALVES.items():
                part = summary[summary["metric"] == halves.get((metric, half))]
                for name, value in zip(part["variant"], part["value"], strict=True):
                    ax.plot(value, variants.index(name) + BELOW, marker=marker, markersize=3.4,
                            color=variant_colour(name), markerfacecolor="white",
                            markeredgewidth=0.7, zorder=2)  # fmt: skip
            ax.set_title(metric)
            ax.set_xlabel("share of instances (%)")
        panels[0].set_yticks(range(len(variants)), map(named, variants))
        panels[0].set_ylim(len(variants) - 0.4, -0.6)
        dot = {"color": INK, "marker": "o", "markersize": 4.6}
        handles: list[Line2D | Patch] = [Line2D([], [], label="value, 95 % interval", **dot)]
        if "base" in variants:
            handles.append(Line2D([], [], color=FAINT, linestyle=(0, (4, 2)), label="base model"))
            handles.append(Patch(facecolor=FAINT, alpha=0.13, label="its interval"))
        for half, marker in HALVES.items() if halves else ():
            look = {"color": INK, "markersize": 3.4, "markerfacecolor": "white"}
            look |= {"linestyle": "", "marker": marker, "label": f"{half} half"}
            handles.append(Line2D([], [], **look))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        return settle(figure)


def named(variant: str) -> str:
    """A variant's short name and its code; of an unknown variant the code."""
    words = in_words(variant)
    return variant if words == variant else f"{words} · {variant}"


def _draw(ax: Axes, part: pd.DataFrame, variants: list[str]) -> None:
    """Draw one metric: a row for each variant, the base as a line; `part` is indexed by variant."""
    ax.grid(axis="x", color=FAINT, alpha=0.2, linewidth=0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_axisbelow(True)
    if "base" in part.index:
        look = {"color": FAINT, "zorder": 1}
        base = part.loc["base"]
        ax.axvline(base["value"], linestyle=(0, (4, 2)), linewidth=0.9, **look)
        if np.isfinite(base["low"]):
            ax.axvspan(base["low"], base["high"], alpha=0.13, linewidth=0, **look)
    for y, name in enumerate(variants):
        if name not in part.index or np.isnan(part.loc[name, "value"]):
            ax.text(0.5, y, "not run", color=FAINT, fontsize=6.5, ha="center", va="center",
                    transform=ax.get_yaxis_transform())  # fmt: skip
            continue
        row, colour = part.loc[name], variant_colour(name)
        if np.isfinite(row["low"]):
            ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.6,
                    solid_capstyle="butt", zorder=3)  # fmt: skip
        ax.plot(row["value"], y, "o", color=colour, markersize=4.6, markeredgecolor="white",
                markeredgewidth=0.6, zorder=4)  # fmt: skip

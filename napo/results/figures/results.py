"""What each variant reaches beside the base model, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from napo.config.variants import VARIANTS
from napo.results.figures.style import (
    FAINT,
    INK,
    PAGE,
    new_figure,
    settle,
    style,
    variant_colour,
)

HALVES = {"true": 5, "false": 4}  # matplotlib's carets: right for true statements, left for false
COLUMNS = 4  # panels beside each other
BELOW = 0.3  # of a row: where the halves stand, so that the value's dot does not hide them


def comparison(summary: pd.DataFrame) -> Figure:
    """A value and its 95 % interval for each variant; a panel for each metric, a line for the base.

    Args:
        summary: columns `variant` ("base" among them if it ran), `metric`, `value`, `low`, `high`
            (missing where there is no interval). Panels come in the order of the metrics. A metric
            called "LP true" or "LP false" is a half of LP (VLind-Bench asks about a true and a
            false statement): a small mark in LP's panel.
    """
    halves = {name: _half(name, set(summary["metric"])) for name in summary["metric"].unique()}
    metrics = [name for name, half in halves.items() if half is None]
    order = {name: at for at, name in enumerate(("base", *VARIANTS))}
    variants = sorted(
        summary["variant"].unique(),
        key=lambda name: (order.get(name.removesuffix("-lora"), len(order)), name),
    )
    columns = min(COLUMNS, len(metrics)) or 1
    rows = -(-len(metrics) // columns) or 1
    with style():
        figure = new_figure(PAGE, (0.55 + 0.175 * max(3, len(variants))) * rows + 0.25)
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for ax, metric in zip(panels, metrics, strict=False):
            part = summary[summary["metric"] == metric]
            _panel(ax, part.set_index("variant"), variants)
            for name, half in halves.items():
                if half is not None and half[0] == metric:
                    _marks(ax, summary[summary["metric"] == name], variants, half[1])
            ax.set_title(metric)
        for ax in panels[len(metrics) :]:
            ax.set_visible(False)
        panels[0].set_yticks(range(len(variants)), variants)
        panels[0].set_ylim(len(variants) - 0.4, -0.6)
        _legend(figure, "base" in variants, any(halves.values()))
        return settle(figure)


def _half(name: str, metrics: set[str]) -> tuple[str, str] | None:
    """The metric that this one is a half of, and which half."""
    whole, _, half = name.rpartition(" ")
    return (whole, half) if half in HALVES and whole in metrics else None


def _panel(ax: Axes, part: pd.DataFrame, variants: list[str]) -> None:
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
    for at, name in enumerate(variants):
        if name not in part.index or np.isnan(part.loc[name, "value"]):
            where = ax.get_yaxis_transform()
            ax.text(0.5, at, "not run", color=FAINT, fontsize=6.5, ha="center", va="center",
                    transform=where)  # fmt: skip
            continue
        row, colour = part.loc[name], variant_colour(name)
        if np.isfinite(row["low"]):
            ax.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=1.6,
                    solid_capstyle="butt", zorder=3)  # fmt: skip
        ax.plot(row["value"], at, "o", color=colour, markersize=4.6, markeredgecolor="white",
                markeredgewidth=0.6, zorder=4)  # fmt: skip


def _marks(ax: Axes, part: pd.DataFrame, variants: list[str], half: str) -> None:
    where = {name: at for at, name in enumerate(variants)}
    for name, value in zip(part["variant"], part["value"], strict=True):
        ax.plot(value, where[name] + BELOW, marker=HALVES[half], markersize=3.4,
                color=variant_colour(name), markerfacecolor="white",
                markeredgewidth=0.7, zorder=2)  # fmt: skip


def _legend(figure: Figure, base: bool, halves: bool) -> None:
    dot = {"color": INK, "marker": "o", "markersize": 4.6}
    handles: list[Line2D | Patch] = [Line2D([], [], label="value, 95 % interval", **dot)]
    if base:
        handles.append(Line2D([], [], color=FAINT, linestyle=(0, (4, 2)), label="base model"))
        handles.append(Patch(facecolor=FAINT, alpha=0.13, label="its interval"))
    for half, marker in HALVES.items():
        if halves:
            look = {"color": INK, "markersize": 3.4, "markerfacecolor": "white"}
            look |= {"linestyle": "", "marker": marker, "label": f"{half} half"}
            handles.append(Line2D([], [], **look))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))

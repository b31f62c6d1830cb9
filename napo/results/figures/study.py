"""The noise study: accuracy against the rate, differences to DPO, noise memorised over a run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from napo.config.study import LOSSES
from napo.results.figures.style import (
    FAINT,
    PAGE,
    new_figure,
    settle,
    style,
    variant_colour,
)

DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = "osD^v<>Ph*"
KINDS = {"flip": "flipped pairs", "unbiased": "unbiased pairs"}
DIFFERENCES = {  # metrics of the figure of differences -> titles of its panels
    "accuracy": "held-out accuracy",
    "memorised": "memorised noise",
    "LP": "VLind LP",
    "CB": "VLind CB",
}


def accuracy_by_rate(summary: pd.DataFrame) -> Figure:
    """Held-out accuracy against the rate of the noise: a line for each loss, with its 95 % band.

    Args:
        summary: from `napo.results.verdicts.summary`. Each budget and kind of noise is a panel.
    """
    part = summary[summary["metric"] == "accuracy"]
    kinds = list(part.groupby(["budget", "kind"], sort=False))
    losses = in_order(part["loss"])
    with style():
        figure = new_figure(PAGE, 2.9)
        panels = figure.subplots(1, max(1, len(kinds)), squeeze=False, sharey=True)[0]
        for ax, ((budget, kind), shown) in zip(panels, kinds, strict=False):
            for loss in losses:
                line = shown[shown["loss"] == loss].sort_values("rate")
                rates = 100 * line["rate"].to_numpy()
                ax.fill_between(rates, line["low"], line["high"], color=colour(loss), alpha=0.1,
                                linewidth=0)  # fmt: skip
                ax.plot(rates, line["value"], **look(loss, losses), markersize=3)
            _frame(ax, f"{KINDS[kind]} ({budget})")
            ax.set_xlabel("noisy training pairs (%)")
            ax.set_xticks(sorted(100 * shown["rate"].unique()))
            ax.set_xlim(-2, 100 * shown["rate"].max() + 2)
        panels[0].set_ylabel("held-out pairs preferred rightly (%)")
        _legend(figure, losses)
        return settle(figure)


def differences(summary: pd.DataFrame) -> Figure:
    """Differences to DPO with 95 % intervals: a row for each loss, a panel for noise and metric.

    Args:
        summary: from `napo.results.verdicts.summary`. Each noise is a row of panels, each metric
            of `DIFFERENCES` that was measured a column. A filled dot is a difference whose
            interval excludes 0.
    """
    shown = summary.dropna(subset="difference")
    # Without noise all kinds are the same, so the flips' panels stand for all.
    shown = shown[(shown["rate"] > 0) | (shown["kind"] == "flip")]
    noises = list(shown.groupby(["budget", "kind", "rate"], sort=False))
    metrics = [name for name in DIFFERENCES if name in set(shown["metric"])]
    losses = in_order(shown["loss"])
    with style():
        height = 0.5 + max(1, len(noises)) * (0.3 + 0.15 * max(3, len(losses)))
        figure = new_figure(PAGE, height)
        grid = figure.subplots(max(1, len(noises)), max(1, len(metrics)), squeeze=False,
                               sharex="col", sharey=True)  # fmt: skip
        for row, ((budget, kind, rate), part) in zip(grid, noises, strict=False):
            for ax, metric in zip(row, metrics, strict=False):
                _dots(ax, part[part["metric"] == metric], losses)
                if ax is grid[0, metrics.index(metric)]:
                    ax.set_title(DIFFERENCES[metric])
            noise = f"{100 * rate:g} % {KINDS[kind]}" if rate else "no noise"
            row[0].set_ylabel(f"{noise}\n({budget})")
        grid[0, 0].set_yticks(range(len(losses)), losses)
        grid[0, 0].set_ylim(len(losses) - 0.4, -0.6)
        for ax in grid[-1]:
            ax.set_xlabel("points above DPO")
        return settle(figure)


def memorised_by_part(parts: pd.DataFrame) -> Figure:
    """The noise that a run has memorised so far: a line for each loss, from lowest to highest seed.

    Args:
        parts: from `napo.results.verdicts.by_part`. Each budget and noise is a panel.
    """
    noises = list(parts.groupby(["budget", "kind", "rate"], sort=False))
    losses = in_order(parts["loss"])
    with style():
        columns = max(1, min(3, len(noises)))
        rows = max(1, -(-len(noises) // columns))
        figure = new_figure(PAGE, 0.4 + 2.3 * rows)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, ((budget, kind, rate), shown) in zip(panels.flat, noises, strict=False):
            for loss in losses:
                line = shown[shown["loss"] == loss]
                done = 100 * line["progress"]
                ax.fill_between(done, line["low"], line["high"], color=colour(loss), alpha=0.1,
                                linewidth=0)  # fmt: skip
                ax.plot(done, line["value"], **{**look(loss, losses), "marker": ""})
            _frame(ax, f"{100 * rate:g} % {KINDS[kind]} ({budget})")
        for ax in list(panels.flat)[len(noises) :]:
            ax.set_visible(False)
        for ax in panels[-1]:
            ax.set_xlabel("training done (%)")
        for ax in panels[:, 0]:
            ax.set_ylabel("noisy pairs preferred as trained (%)")
        _legend(figure, losses)
        return settle(figure)


def in_order(names: Iterable[str]) -> list[str]:
    """Losses in the order of their entries, each once."""
    order = list(LOSSES)
    return sorted(set(names), key=order.index)


def colour(loss: str) -> str:
    """The colour of a loss of the study."""
    return LOSSES[loss].colour or variant_colour(loss)


def look(loss: str, losses: list[str]) -> dict[str, object]:
    """Colour, line and marker of a loss, distinct in grey too."""
    place = losses.index(loss)
    return {
        "color": colour(loss),
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }


def _frame(ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.5)
    ax.set_axisbelow(True)


def _legend(figure: Figure, losses: list[str]) -> None:
    handles = [Line2D([], [], label=loss, markersize=3, **look(loss, losses)) for loss in losses]
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, min(8, len(losses))))


def _dots(ax: Axes, part: pd.DataFrame, losses: list[str]) -> None:
    """Differences of one metric at one noise, a row for each loss."""
    _frame(ax, "")
    ax.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.tick_params(axis="y", length=0)
    rows = part.set_index("loss")
    for y, loss in enumerate(losses):
        if loss not in rows.index:
            continue
        row = rows.loc[loss]
        low, high = row["difference_low"], row["difference_high"]
        decided = low > 0 or high < 0
        if np.isfinite(low):
            ax.plot([low, high], [y, y], color=colour(loss), linewidth=1.4, zorder=2)
        ax.plot(row["difference"], y, "o", color=colour(loss), markersize=4.2, zorder=3,
                markerfacecolor=colour(loss) if decided else "white")  # fmt: skip

"""The reliability curve: how often responses with a given probability of noise are noise."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from napo.results.figures.style import FAINT, INK, PAGE, TERM_LOOKS, new_figure, settle, style

DOTTED = (0, (1.2, 1.2))


def calibration(reliability: pd.DataFrame) -> Figure | None:
    """Predicted probability and observed share of noise; a panel for each kind of response.

    None without rows.

    Args:
        reliability: from `napo.noise.posterior.reliability`.
    """
    kinds = list(reliability["kind"].unique())
    if not kinds:
        return None
    with style():
        figure = new_figure(PAGE, 2.7)
        panels = figure.subplots(1, len(kinds), squeeze=False)[0]
        for ax, kind in zip(panels, kinds, strict=True):
            part, colour = reliability[reliability["kind"] == kind], TERM_LOOKS[kind][0]
            ax.plot([0, 1], [0, 1], color=FAINT, linestyle=DOTTED)
            below, above = part["observed"] - part["low"], part["high"] - part["observed"]
            ax.errorbar(part["predicted"], part["observed"], yerr=[below, above], fmt="o-",
                        color=colour, markersize=3, linewidth=1, elinewidth=0.8)  # fmt: skip
            ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability of noise")
            count = f"{part['count'].sum():,} rows"
            ax.set_title(f"{kind.replace('_', '-').capitalize()} responses, {count}")
        panels[0].set_ylabel("observed share of noise")
        handles = [
            Line2D([], [], color=FAINT, linestyle=DOTTED, label="calibrated"),
            Line2D([], [], color=INK, marker="o", markersize=3, label="observed, 95 % interval"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return settle(figure)

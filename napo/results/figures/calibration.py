"""The reliability curve: how often responses with a given probability of noise are noise."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from napo.results.figures.style import FAINT, PAGE, TERM_LOOKS, new_figure, settle, style


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
        figure = new_figure(PAGE, 2.5)
        panels = figure.subplots(1, len(kinds), squeeze=False)[0]
        for ax, kind in zip(panels, kinds, strict=True):
            part, colour = reliability[reliability["kind"] == kind], TERM_LOOKS[kind][0]
            ax.plot([0, 1], [0, 1], color=FAINT, linestyle=(0, (1.2, 1.2)), label="calibrated")
            below, above = part["observed"] - part["low"], part["high"] - part["observed"]
            ax.errorbar(part["predicted"], part["observed"], yerr=[below, above], fmt="o-",
                        color=colour, markersize=3, linewidth=1, elinewidth=0.8,
                        label="observed, 95 % interval")  # fmt: skip
            ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability of noise")
            count = f"{part['count'].sum():,} rows"
            ax.set_title(f"{kind.replace('_', '-').capitalize()} responses, {count}")
        panels[0].set_ylabel("observed share of noise")
        panels[0].legend(loc="upper left")
        return settle(figure)

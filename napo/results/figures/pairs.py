"""Weights and q of single pairs: as functions of the margin, and how they spread in training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from napo.results.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    PAGE,
    TERM_LOOKS,
    new_figure,
    settle,
    style,
)

REACH = 3.0  # half the length of the axis of relative margins
RAMPS = (0.0, 0.5, 1.0)
BLOCKS = 30  # points of a band; more steps are taken together in equal blocks
QUANTILES = {"lowest": 0.05, "low": 0.25, "median": 0.5, "high": 0.75, "highest": 0.95}
TITLES = {"weight": "weight of a pair", "q": "$q$ of a pair"}
LIMITS = {"weight": (0, 2), "q": (0, 1)}


def pair_curves(points: int = 121) -> pd.DataFrame:
    """Weight and q of a pair against its margin over the spread, by the functions that train.

    Returns:
        Columns `relative_margin` (psi / spread), `weight_0`, `weight_0.5`, `weight_1` (at these
        values of the ramp), `q`, and `q_eq12` (a batch of such pairs under Eq. 12 with alpha 0.01
        and a spread of one nat).
    """
    import torch

    from napo.method import losses

    psi = torch.linspace(-REACH, REACH, points, dtype=torch.float64)
    weights = {f"weight_{ramp:g}": losses.pair_weights(psi, 1.0, ramp) for ramp in RAMPS}
    coefficients = {
        "q": losses.pair_coefficients(psi, 1.0),
        "q_eq12": torch.stack([losses.robustness_coefficient(margin, 0.01) for margin in psi]),
    }
    columns = {"relative_margin": psi, **weights, **coefficients}
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def pair_readings(curves: pd.DataFrame) -> Figure:
    """The weight (left) and the q (right) of a pair against its relative margin.

    Args:
        curves: from `pair_curves`.
    """
    lines = {
        "weight": {
            "weight_0": ("first step: 1", FAINT, (0, (1.2, 1.2))),
            "weight_0.5": ("half of the ramp", GREEN, (0, (5, 1.5))),
            "weight_1": ("after the ramp", BLUE, "-"),
        },
        "q": {
            "q_eq12": ("Eq. 12, α = 0.01, spread 1 nat", FAINT, (0, (1.2, 1.2))),
            "q": ("for each pair", BLUE, "-"),
        },
    }
    with style():
        figure = new_figure(PAGE, 2.2)
        for ax, (quantity, drawn) in zip(figure.subplots(1, 2), lines.items(), strict=True):
            for column, (label, colour, dashes) in drawn.items():
                ax.plot(curves["relative_margin"], curves[column], label=label, color=colour,
                        linestyle=dashes)  # fmt: skip
            ax.axvline(0, color=INK, linewidth=0.5, alpha=0.4, zorder=0)
            ax.set(xlim=(-REACH, REACH), ylim=LIMITS[quantity], xlabel=r"margin $\psi$ / spread")
            ax.set_title(TITLES[quantity])
            ax.legend(loc="upper left" if quantity == "weight" else "upper right")
        return settle(figure)


def pair_quantiles(records: pd.DataFrame) -> pd.DataFrame:
    """How the weights and the q of single pairs spread over training, from a run's records.

    Args:
        records: of runs of one variant, as `napo.training.records.read_records` gives them.

    Returns:
        Columns `quantity` ("weight" or "q"), `term`, `step` (the middle of its block), and the
        quantiles `lowest` (5 %), `low`, `median`, `high`, `highest` (95 %) over all pairs and
        seeds. No rows for a run whose pairs of a step all have the same.
    """
    steps = np.sort(records["step"].unique())
    block_of = pd.Series(np.arange(len(steps)) * BLOCKS // max(len(steps), BLOCKS), index=steps)
    by = records["step"].map(block_of)
    middles = records["step"].groupby(by).agg(lambda values: (values.min() + values.max()) / 2)
    frames = []
    for column in records.columns:
        term, _, quantity = column.rpartition("_")
        if quantity not in TITLES or not _varies(records, column):
            continue
        spread = records.groupby(by)[column].quantile(list(QUANTILES.values())).unstack()
        spread.columns = list(QUANTILES)
        frames.append(spread.assign(quantity=quantity, term=term, step=middles))
    columns = ["quantity", "term", "step", *QUANTILES]
    empty = pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True)[columns] if frames else empty


def pairs_over_training(quantiles: pd.DataFrame) -> Figure | None:
    """Weights and q of single pairs over training; a panel for each term. None without rows.

    Args:
        quantiles: from `pair_quantiles`.
    """
    if quantiles.empty:
        return None
    cells = list(quantiles.groupby(["quantity", "term"], sort=False))
    with style():
        figure = new_figure(PAGE, 0.3 + 1.7 * -(-len(cells) // 3))
        panels = figure.subplots(-(-len(cells) // 3), min(3, len(cells)), squeeze=False).flat
        for ax, ((quantity, term), part) in zip(panels, cells, strict=False):
            colour = TERM_LOOKS.get(term, (INK, "-"))[0]
            for low, high, shade in (("lowest", "highest", 0.15), ("low", "high", 0.3)):
                ax.fill_between(part["step"], part[low], part[high], color=colour, alpha=shade,
                                linewidth=0)  # fmt: skip
            ax.plot(part["step"], part["median"], color=colour)
            ax.set(ylim=LIMITS[quantity], xlabel="optimiser step")
            ax.set_title(f"{TITLES[quantity]}, {term.replace('_biased', '-biased')}")
            ax.margins(x=0.01)
        for ax in list(panels):  # places that no term fills
            ax.remove()
        return settle(figure)


def _varies(records: pd.DataFrame, column: str) -> bool:
    """Whether pairs of the same step have different values."""
    keys = [name for name in ("seed", "step") if name in records]
    ends = records.groupby(keys)[column].agg(["min", "max"])
    return bool((ends["min"] < ends["max"]).any())

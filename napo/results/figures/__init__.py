"""Figures: data frame in, matplotlib `Figure` out; nothing is shown or saved while drawing.

`save` writes a figure as pdf, svg and png with the csv behind it. One style, one map from variants
to colours. Colour-blind readers can distinguish the colours; in grey, lines, hatches or positions
differ.
"""

from napo.results.figures.calibration import calibration
from napo.results.figures.collapse import READ, gamma_collapse
from napo.results.figures.losses import PAPERS_QS, fig3, fig3_name, loss_curves
from napo.results.figures.margins import fig4
from napo.results.figures.pairs import (
    pair_curves,
    pair_quantiles,
    pair_readings,
    pairs_over_training,
)
from napo.results.figures.results import comparison
from napo.results.figures.study import accuracy_by_rate, differences, memorised_by_part
from napo.results.figures.style import COLUMN, PAGE, save, style, variant_colour
from napo.results.figures.training import per_step, pretraining, training_curves

__all__ = [
    "COLUMN", "PAGE", "PAPERS_QS", "READ", "accuracy_by_rate", "calibration", "comparison",
    "differences", "fig3", "fig3_name", "fig4", "gamma_collapse", "loss_curves",
    "memorised_by_part", "pair_curves", "pair_quantiles", "pair_readings", "pairs_over_training",
    "per_step", "pretraining", "save", "style", "training_curves", "variant_colour",
]  # fmt: skip

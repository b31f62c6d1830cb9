"""The loss and its gradient for chosen q, alpha and beta, by the functions that train."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd

from napo.lab.html import drawing, remark
from napo.lab.live import Explorer, controls
from napo.results.figures import fig3, loss_curves
from napo.results.figures.losses import BCE, MAE, curves_of

MARGIN, PROBABILITY = "margin", "probability"
REACH = 50.0  # half the length of the margin's axis, nats
EQ12 = "NaPO, q of Eq. 12"
ALT = (
    "Fig. 3: NaPO's loss between BCE and MAE, and the weight of a pair in the gradient, against "
    "the probability that the chosen response is preferred"
)


def curves(
    q: float, alpha: float, beta: float, over: str = MARGIN, points: int = 200
) -> tuple[pd.DataFrame, np.ndarray]:
    """Losses of a pair and their weights in the gradient; NaPO with fixed q and with q of Eq. 12.

    With q of Eq. 12, each point is a batch of equal margins.

    Args:
        q: of the fixed curve.
        alpha: of Eq. 12.
        beta: of Eq. 2: psi is beta times the margin (the difference of log-ratios).
        over: the axis `x`: "margin" (nats) or "probability" (sigmoid(psi)).
        points: number of values of x.

    Returns:
        The columns of `figures.loss_curves`, and q of Eq. 12 at each x.
    """
    import torch

    from napo.method import losses

    if over == MARGIN:
        x = torch.linspace(-REACH, REACH, points + 1, dtype=torch.float64)
        psis = beta * x
    else:
        x = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1] ** 2
        psis = torch.logit(x)
    qs = torch.stack([losses.robustness_coefficient(psi, alpha) for psi in psis])
    functions = {
        BCE: losses.dpo_loss,
        f"NaPO, q = {q:g}": lambda psi: losses.napo_loss(psi, q),
        EQ12: lambda psi: losses.napo_loss(psi, qs),
        MAE: losses.mae_loss,
    }
    return curves_of(functions, x, psis), qs.numpy()


class Loss(Explorer):
    """NaPO's loss and gradient with sliders for q, alpha and beta; without a kernel Fig. 3."""

    def __init__(self) -> None:
        self.q = widgets.FloatSlider(0.5, min=0.01, max=1, step=0.01, description="q")
        self.alpha = widgets.FloatLogSlider(0.5, min=-3, max=0.5, step=0.05, description="α")
        self.beta = widgets.FloatLogSlider(0.1, min=-2, max=0, step=0.05, description="β")
        self.alpha.readout_format = self.beta.readout_format = ".3f"
        self.over = widgets.Dropdown(options=[MARGIN, PROBABILITY], description="against")
        parts = (self.q, self.alpha, self.beta, self.over)
        super().__init__(
            "NaPO's loss and gradient under q, alpha and beta",
            drawing(fig3(loss_curves())._repr_png_(), ALT),
            [controls(*parts)],
        )
        for part in parts:
            part.continuous_update = False  # draw once per drag
            part.observe(self.update, "value")

    def fill(self) -> None:
        """Draw the curves of the sliders' values."""
        over = self.over.value
        frame, qs = curves(self.q.value, self.alpha.value, self.beta.value, over)
        figure = fig3(frame)
        if over == MARGIN:
            for ax in figure.axes:
                ax.set(xlim=(-REACH, REACH), xlabel=r"margin $\psi/\beta$ (nats)")
        note = (
            f"q = {self.q.value:.2f} fixed; by Eq. 12 with α = {self.alpha.value:.3g} "
            f"(§4.1: 0.5 per token, 0.01 summed) q goes from {qs[0]:.2f} at the left to "
            f"{qs[-1]:.2f} at the right. β = {self.beta.value:.3g} only stretches the margin's "
            "axis."
        )
        alt = f"Losses and gradient weights against the {over}: {note}"
        self.view.value = drawing(figure._repr_png_(), alt) + remark(note)

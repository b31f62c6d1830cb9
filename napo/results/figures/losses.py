"""Fig. 3: the losses between BCE and MAE, drawn from the functions that train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from napo.errors import NapoError
from napo.results.figures.style import COLUMN, FAINT, INK, PAGE, new_figure, settle, style

if TYPE_CHECKING:
    import torch

    Loss = Callable[[torch.Tensor], torch.Tensor]

BCE, MAE = "BCE (DPO)", "MAE"
PAPERS_QS = (0.1, 0.3, 0.5, 0.7, 0.9)  # Fig. 3
LIGHTEST = 0.62  # of the colours; lighter ones have a contrast below 3 : 1 on white paper
TOP = 5.0  # of the loss axis: BCE is unbounded


def loss_curves(qs: Sequence[float] = PAPERS_QS, points: int = 400) -> pd.DataFrame:
    """Losses of a pair, and its weight in the gradient, against x = sigmoid(psi).

    The weight is |d loss / d psi|, by automatic differentiation of `napo.method.losses`.

    Args:
        qs: values of q in (0, 1] for `napo.method.losses.napo_loss` (by default Fig. 3's).
        points: values of x, denser near 0, where the losses differ most.

    Returns:
        Columns `loss` ("BCE (DPO)", "NaPO, q = 0.1" ..., "MAE"), `x`, `value`, `weight`; from the
        largest loss to the smallest (Eq. 11).
    """
    import torch

    from napo.method import losses

    outside = [q for q in qs if not 0 < q <= 1]
    if outside:
        raise NapoError(f"q is {outside[0]:g}; NaPO's q lies in (0, 1], so choose others.")
    x = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1] ** 2
    functions = {BCE: losses.dpo_loss}
    for q in distinct(qs):
        functions[f"NaPO, q = {q:g}"] = lambda psi, q=q: losses.napo_loss(psi, q)
    functions[MAE] = losses.mae_loss
    return curves_of(functions, x, torch.logit(x))


def curves_of(functions: Mapping[str, Loss], x: torch.Tensor, psis: torch.Tensor) -> pd.DataFrame:
    """The columns of `loss_curves` for these losses, each a function of psi, against x."""
    import torch

    frames = []
    for name, loss in functions.items():
        psi = psis.clone().requires_grad_()
        value = loss(psi)
        (slope,) = torch.autograd.grad(value.sum(), psi)
        columns = {"x": x, "value": value.detach(), "weight": slope.abs()}
        columns = {key: tensor.numpy() for key, tensor in columns.items()}
        frames.append(pd.DataFrame({"loss": name, **columns}))
    return pd.concat(frames, ignore_index=True)


def distinct(qs: Sequence[float]) -> list[float]:
    """Values of q in ascending order; values that print alike count once."""
    return sorted({f"{q:g}": q for q in qs}.values())


def fig3_name(qs: Sequence[float]) -> str:
    """The file name: "fig3" for the paper's values of q; other values get their own file."""
    values = distinct(qs)
    return "fig3" if values == list(PAPERS_QS) else f"fig3-q-{'-'.join(f'{q:g}' for q in values)}"


def fig3(curves: pd.DataFrame, width: float = PAGE) -> Figure:
    """Fig. 3: NaPO's loss between BCE and MAE, and the weight of a pair in the gradient.

    Args:
        curves: from `loss_curves`.
        width: inches; `PAGE` has the panels side by side, `COLUMN` above each other.
    """
    wide = width > COLUMN
    parts = dict(list(curves.groupby("loss", sort=False)))
    between = [name for name in parts if name not in (BCE, MAE)]
    looks = {
        BCE: {"color": INK, "linestyle": (0, (4, 1.5)), "zorder": 3},
        MAE: {"color": FAINT, "linestyle": (0, (1.2, 1.2)), "zorder": 3},
    }
    for index, name in enumerate(between):  # from dark to light, an order that grey prints keep
        shade = LIGHTEST * index / max(1, len(between) - 1)
        looks[name] = {"color": mpl.colormaps["plasma"](shade)}
    slope = r"$|\partial L/\partial\psi|$"
    panels = {
        "value": ("(a) Loss of a pair", "loss", TOP),
        "weight": ("(b) Its weight in the gradient",
                   f"gradient weight {slope}" if wide else slope, 1),
    }  # fmt: skip
    with style():
        figure = new_figure(width, 2.35 if wide else 4.4)
        axes = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
        for ax, (column, (title, label, top)) in zip(axes, panels.items(), strict=True):
            for name, part in parts.items():
                text = name.replace("q =", "$q$ =")
                ax.plot(part["x"], part[column], label=text, **looks[name])
            ax.set(xlim=(0, 1), ylim=(0, top), xlabel=r"$x=\sigma(\psi)$", ylabel=label)
            ax.set_title(title, loc="left")
        place = {"loc": "outside right center", "labelspacing": 0.6}
        if not wide:
            place = {"loc": "outside lower center", "ncols": 3, "columnspacing": 1.0}
        figure.legend(handles=axes[0].get_lines(), **place)
        return settle(figure)

"""Fig. 3: the losses between BCE and MAE, drawn from the very functions that train."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napo.results.figures.style import COLUMN, FAINT, INK, PAGE, letter, new_figure, settle, style

BCE, MAE = "BCE (DPO)", "MAE"
PAPERS_QS = (0.1, 0.3, 0.5, 0.7, 0.9)  # Fig. 3
LIGHTEST = 0.62  # of the colours
TOP = 5.0  # of the loss axis: BCE has no largest value


def loss_curves(qs: Sequence[float] = PAPERS_QS, points: int = 400) -> pd.DataFrame:
    """Losses of a pair, and its weight in the gradient, against x = sigmoid(psi).

    The weight is |d loss / d psi|, by automatic differentiation of `napo.method.losses`.

    Args:
        qs: values of q in (0, 1] for `napo.method.losses.napo_loss` (Fig. 3's by default).
        points: values of x, denser towards 0, where the losses part.

    Returns:
        Columns `loss` ("BCE (DPO)", "NaPO, q = 0.1" ..., "MAE"), `x`, `value`, `weight`; from the
        largest loss to the smallest (Eq. 11).

    Raises:
        NapoError: for a q outside (0, 1].
    """
    import torch

    from napo.errors import NapoError
    from napo.method import losses

    outside = [q for q in qs if not 0 < q <= 1]
    if outside:
        raise NapoError(f"q is {outside[0]:g}; NaPO's q lies in (0, 1], so choose others.")
    qs = _apart(qs)
    x = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1] ** 2
    made = [(BCE, losses.dpo_loss)]
    made += [(f"NaPO, q = {q:g}", lambda psi, q=q: losses.napo_loss(psi, q)) for q in qs]
    made += [(MAE, losses.mae_loss)]
    frames = []
    for name, loss in made:
        psi = torch.logit(x).requires_grad_()
        value = loss(psi)
        (slope,) = torch.autograd.grad(value.sum(), psi)
        columns = {"x": x, "value": value.detach(), "weight": slope.abs()}
        columns = {key: tensor.numpy() for key, tensor in columns.items()}
        frames.append(pd.DataFrame({"loss": name, **columns}))
    return pd.concat(frames, ignore_index=True)


def _apart(qs: Sequence[float]) -> list[float]:
    """Values of q in their order, each once: those that a legend would call alike are one."""
    return sorted({f"{q:g}": q for q in qs}.values())


def fig3_name(qs: Sequence[float]) -> str:
    """The file name: "fig3" for the paper's values of q, others get a figure of their own."""
    values = _apart(qs)
    return "fig3" if values == list(PAPERS_QS) else f"fig3-q-{'-'.join(f'{q:g}' for q in values)}"


def fig3(curves: pd.DataFrame, width: float = PAGE) -> Figure:
    """Fig. 3: NaPO's loss between BCE and MAE, and the weight each gives a pair.

    Args:
        curves: as `loss_curves` gives them.
        width: inches; `PAGE` puts the panels side by side, `COLUMN` one above the other.
    """
    wide = width > COLUMN
    with style():
        figure = new_figure(width, 2.35 if wide else 4.4)
        left, right = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
        _draw(left, curves, "value")
        _draw(right, curves, "weight")
        left.set(ylim=(0, TOP), ylabel="loss")
        slope = r"$|\partial L/\partial\psi|$"
        right.set(ylim=(0, 1), ylabel=f"gradient weight {slope}" if wide else slope)
        left.set_title("Loss of a pair", loc="left")
        right.set_title("Its weight in the gradient", loc="left")
        for ax in (left, right):
            ax.set(xlim=(0, 1), xlabel=r"$x=\sigma(\psi)$")
        letter([left, right])
        place = {"loc": "outside right center", "labelspacing": 0.6}
        if not wide:
            place = {"loc": "outside lower center", "ncols": 3, "columnspacing": 1.0}
        figure.legend(handles=left.get_lines(), **place)
        return settle(figure)


def _draw(ax: Axes, curves: pd.DataFrame, column: str) -> None:
    """One line a curve; NaPO's go from dark (BCE's end) to lighter, an order that grey keeps."""
    import matplotlib as mpl

    shades = mpl.colormaps["plasma"]
    parts = dict(list(curves.groupby("loss", sort=False)))
    between = [name for name in parts if name not in (BCE, MAE)]
    for name, part in parts.items():
        if name == BCE:
            look = {"color": INK, "linestyle": (0, (4, 1.5)), "zorder": 3}
        elif name == MAE:
            look = {"color": FAINT, "linestyle": (0, (1.2, 1.2)), "zorder": 3}
        else:
            # Up to where the contrast with white paper is still 3 : 1.
            look = {"color": shades(LIGHTEST * between.index(name) / max(1, len(between) - 1))}
        label = name.replace("q =", "$q$ =")
        ax.plot(part["x"], part[column], label=label, **look)

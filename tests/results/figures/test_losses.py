"""Fig. 3: the curves are the paper's formulas, and the lines are readable."""

import numpy as np
import pytest

from napo.errors import NapoError
from napo.results import figures


def test_only_the_papers_values_of_q_are_called_fig3():
    assert figures.fig3_name([0.9, 0.1, 0.3, 0.5, 0.7]) == "fig3"
    assert figures.fig3_name([0.5, 0.25, 0.25]) == "fig3-q-0.25-0.5"


def test_loss_curves_are_the_papers_formulas_and_weights_their_slopes_in_psi():
    curves = figures.loss_curves([0.3], points=99)
    by = {name: part for name, part in curves.groupby("loss")}
    x = by["MAE"]["x"].to_numpy()
    np.testing.assert_allclose(by["BCE (DPO)"]["value"], -np.log(x), rtol=1e-9)
    np.testing.assert_allclose(by["NaPO, q = 0.3"]["value"], (1 - x**0.3) / 0.3, rtol=1e-9)
    np.testing.assert_allclose(by["MAE"]["value"], 1 - x, rtol=1e-9)
    # Slopes in psi, by hand: BCE 1 - x, NaPO x^q (1 - x), MAE x (1 - x).
    np.testing.assert_allclose(by["BCE (DPO)"]["weight"], 1 - x, rtol=1e-9)
    np.testing.assert_allclose(by["NaPO, q = 0.3"]["weight"], x**0.3 * (1 - x), rtol=1e-9)
    np.testing.assert_allclose(by["MAE"]["weight"], x * (1 - x), rtol=1e-9)
    assert list(curves) == ["loss", "x", "value", "weight"]


def test_both_panels_of_fig3_have_a_line_for_each_loss_in_the_legends_order():
    figure = figures.fig3(figures.loss_curves([0.9, 0.1], points=20))
    left, right = figure.axes
    labels = ["BCE (DPO)", "NaPO, $q$ = 0.1", "NaPO, $q$ = 0.9", "MAE"]
    assert [line.get_label() for line in left.lines] == labels
    assert [line.get_label() for line in right.lines] == labels
    heights = [line.get_ydata()[1] for line in left.lines]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("q", [0.0, -0.1, 1.5, float("nan")])
def test_a_q_outside_0_to_1_is_refused(q):
    with pytest.raises(NapoError, match="lies in \\(0, 1\\]"):
        figures.loss_curves([0.5, q])

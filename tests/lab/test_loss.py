import numpy as np
import pytest
from lab_fixtures import Tags

from napo import lab
from napo.lab.loss import EQ12, curves
from napo.results import figures


def test_curves_are_those_of_fig3_for_a_fixed_q():
    mine, papers = curves(0.3, 0.5, 0.1, "probability", 99)[0], figures.loss_curves([0.3], 99)
    both = [frame[frame["loss"] != EQ12].reset_index(drop=True) for frame in (mine, papers)]
    np.testing.assert_allclose(both[0][["x", "value", "weight"]], both[1][["x", "value", "weight"]])
    assert both[0]["loss"].tolist() == both[1]["loss"].tolist()


def test_q_of_eq_12_falls_with_the_margin_and_carries_no_gradient():
    # By hand: q = 1 - sigmoid(alpha psi), weight x^q (1 - x) with q held.
    frame, qs = curves(0.5, 0.5, 0.1)
    part = frame.query("loss == @EQ12")
    psi = 0.1 * part["x"].to_numpy()
    q = np.clip(1 - 1 / (1 + np.exp(-0.5 * psi)), 0.01, 1)
    x = 1 / (1 + np.exp(-psi))
    np.testing.assert_allclose(qs, q, rtol=1e-6)
    np.testing.assert_allclose(part["weight"], x**q * (1 - x), rtol=1e-6)


@pytest.mark.parametrize(
    ("slider", "value"), [("q", 0.9), ("alpha", 0.01), ("beta", 1.0), ("over", "probability")]
)
def test_each_slider_draws_the_figure_anew(slider, value):
    made = lab.loss()
    made.wake()
    before = made.view.value
    getattr(made, slider).value = value
    after = made.view.value
    assert after != before and Tags(after).of("img")[0]["alt"] != Tags(before).of("img")[0]["alt"]

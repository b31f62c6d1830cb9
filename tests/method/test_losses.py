"""The losses against the paper's formulas, recomputed with mpmath's 50 digits.

Gradients, float32 and margins far out: test_loss_ranges.py.
"""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napo.method import losses, other_losses

mpmath.mp.dps = 50
MARGINS = [-50.0, -20.0, -3.3, -0.7, -1e-6, 0.0, 1e-6, 0.4, 2.9, 20.0, 50.0]
margins = st.floats(-50, 50, allow_nan=False)
coefficients = st.floats(0.01, 1.0)


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-mpmath.mpf(x)))


def column(values):
    return torch.tensor(values, dtype=torch.float64)


def matches(actual, expected):
    assert actual.tolist() == pytest.approx([float(e) for e in expected], rel=1e-12, abs=1e-15)


def test_reward_margin_is_the_scaled_difference_of_log_ratios():
    # (-10 - -12) - (-20 - -15) = 7 nats in favour of the chosen response; times beta.
    psi = losses.reward_margin(column([-10.0]), column([-20.0]), column([-12.0]), column([-15.0]))
    assert psi.item() == pytest.approx(0.7)
    plain = losses.reward_margin(
        column([-10.0]), column([-20.0]), column([-12.0]), column([-15.0]), beta=1.0
    )
    assert plain.item() == pytest.approx(7.0)


def test_dpo_loss_is_equation_3():
    matches(losses.dpo_loss(column(MARGINS)), [-mpmath.log(sigmoid(m)) for m in MARGINS])


def test_mae_loss_is_one_minus_sigmoid():
    matches(losses.mae_loss(column(MARGINS)), [1 - sigmoid(m) for m in MARGINS])


@pytest.mark.parametrize("q", [0.001, 0.01, 0.3, 0.5, 0.99, 1.0])
def test_napo_loss_is_equation_9(q):
    expected = [(1 - sigmoid(m) ** mpmath.mpf(q)) / mpmath.mpf(q) for m in MARGINS]
    matches(losses.napo_loss(column(MARGINS), q), expected)


def test_napo_loss_tends_to_dpo_as_q_tends_to_zero():
    psi = column([-3.0, 0.0, 3.0])
    gaps = [(losses.dpo_loss(psi) - losses.napo_loss(psi, q)).max().item() for q in (1e-2, 1e-4)]
    assert gaps[1] < gaps[0] / 90 and gaps[1] < 1e-3


@settings(max_examples=60, deadline=None)
@given(psi=margins, q=coefficients)
def test_napo_loss_lies_between_mae_and_dpo(psi, q):
    psi = column([psi])
    low, middle, high = losses.mae_loss(psi), losses.napo_loss(psi, q), losses.dpo_loss(psi)
    slack = 1e-12 * high
    assert low <= middle + slack and middle <= high + slack  # Eq. 11


def test_conservative_and_robust_dpo_are_their_sources_formulas():
    e = mpmath.mpf("0.2")
    keep = [-mpmath.log(sigmoid(m)) for m in MARGINS]
    flip = [-mpmath.log(sigmoid(-m)) for m in MARGINS]
    pairs = list(zip(keep, flip, strict=True))
    matches(other_losses.cdpo_loss(column(MARGINS), 0.2), [(1 - e) * k + e * f for k, f in pairs])
    robust = [((1 - e) * k - e * f) / (1 - 2 * e) for k, f in pairs]
    matches(other_losses.rdpo_loss(column(MARGINS), 0.2), robust)


def test_robust_dpo_is_dpo_in_expectation_under_flips():
    psi, e = column(MARGINS), 0.3
    expected = (1 - e) * other_losses.rdpo_loss(psi, e) + e * other_losses.rdpo_loss(-psi, e)
    assert torch.allclose(expected, losses.dpo_loss(psi), rtol=1e-10)


def test_ipo_is_the_squared_distance_to_its_target():
    loss = other_losses.ipo_loss(column([5.0, 7.0, -1.0]), 0.1)
    assert loss.tolist() == pytest.approx([0.0, 4.0, 36.0])


@pytest.mark.parametrize("alpha", [0.01, 0.5])
@pytest.mark.parametrize("margin", [-4.0, 0.0, 0.3, 3.0])
def test_robustness_coefficient_is_equation_12(alpha, margin):
    plain = float(1 - sigmoid(alpha * margin))
    coefficient = losses.robustness_coefficient(column([margin - 1, margin + 1]), alpha)
    assert coefficient.shape == () and coefficient.item() == pytest.approx(plain, rel=1e-12)
    released = losses.robustness_coefficient(torch.tensor(margin), alpha, rule="released")
    assert released.item() == pytest.approx(min(1.0, 2 * plain), rel=1e-6)


def test_robustness_coefficient_is_cut_at_both_ends():
    high, low = torch.tensor(1e4), torch.tensor(-1e4)
    assert losses.robustness_coefficient(high, 0.5).item() == pytest.approx(0.01)
    assert losses.robustness_coefficient(low, 0.5).item() == 1.0
    assert losses.robustness_coefficient(high, 0.5, rule="released").item() == pytest.approx(0.001)
    assert losses.robustness_coefficient(low, 0.5, rule="released").item() == 1.0


@pytest.mark.parametrize(
    ("margins", "weights"),
    [
        ([1.0, 3.0, 4.0], [0.125, 0.375, 0.5]),
        ([-1.0, 2.0, 9.0], [0.01, 0.2, 0.9]),  # shares -0.1, 0.2, 0.9
        ([-5.0, 1.0, 5.0], [0.01, 1.0, 1.0]),  # shares -5, 1, 5
        ([0.0, 0.0, 0.0], [1 / 3] * 3),
        ([-2.0, 1.0, 0.5], [1 / 3] * 3),
    ],
)
def test_dynamic_weights_are_cut_shares_and_uniform_without_a_positive_total(margins, weights):
    assert losses.dynamic_weights(column(margins)).tolist() == pytest.approx(weights)


def test_weights_of_the_other_rules():
    assert losses.dynamic_weights(column([5.0, 1.0]), rule="uniform").tolist() == [0.5, 0.5]
    assert losses.dynamic_weights(column([5.0, 1.0]), rule="none").tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="margin, tempered, uniform or none"):
        losses.dynamic_weights(column([5.0]), rule="margins")


@pytest.mark.parametrize(
    ("margins", "weights"),
    [
        ([1.0, 4.0, 9.0], [1 / 6, 2 / 6, 3 / 6]),  # square roots 1, 2, 3
        ([1.0, 10_000.0], [0.01, 100 / 101]),  # 1 / 101 is cut to 0.01
        ([-4.0, 9.0, 1.0], [0.01, 0.75, 0.25]),  # a negative margin counts as 0
        ([-9.0, 4.0, 1.0], [1 / 3] * 3),  # the total is not positive
    ],
)
def test_tempered_weights_are_shares_of_the_square_roots(margins, weights):
    made = losses.dynamic_weights(column(margins), rule="tempered")
    assert made.tolist() == pytest.approx(weights)


def test_tempered_weights_count_a_margin_within_the_noise_as_zero():
    margins = column([1e-4, 1.0])
    assert losses.dynamic_weights(margins, "tempered", 1e-3).tolist() == pytest.approx([0.01, 1.0])
    kept = losses.dynamic_weights(margins, "tempered", 0.0)
    assert kept.tolist() == pytest.approx([0.01, 1 / 1.01])  # its root, 0.01, is a share of 1.01


def test_temper_one_is_the_rule_margin_where_no_margin_is_negative():
    margins = column([0.5, 2.0, 3.0])
    one, plain = (
        losses.dynamic_weights(margins, rule, 0.0, 1.0) for rule in ("tempered", "margin")
    )
    assert one.tolist() == plain.tolist()


# Spread 0.5: psi / spread is -2, 0, 1; tanh(1) = 0.761594..., tanh(2) = 0.964027...
PSI, SPREAD = [-1.0, 0.0, 0.5], 0.5


def test_weights_of_pairs_are_one_plus_tanh_of_the_relative_margin():
    weights = losses.pair_weights(column(PSI), SPREAD)
    assert weights.tolist() == pytest.approx([0.0359724200, 1.0, 1.7615941560])
    third = losses.pair_weights(column(PSI), SPREAD, ramp=1 / 3)
    assert third.tolist() == pytest.approx([0.6786574733, 1.0, 1.2538647187])
    assert losses.pair_weights(column(PSI), SPREAD, ramp=0.0).tolist() == [1.0, 1.0, 1.0]


def test_coefficients_of_pairs_are_equation_12_with_alpha_two_over_the_spread():
    q = losses.pair_coefficients(column(PSI), SPREAD)
    # sigmoid(4), sigmoid(0), sigmoid(-2)
    assert q.tolist() == pytest.approx([0.9820137900, 0.5, 0.1192029220])
    alone = losses.robustness_coefficient(torch.tensor(PSI[2]).double(), alpha=2 / SPREAD)
    assert q[2].item() == pytest.approx(alone.item())
    ends = losses.pair_coefficients(column([-50.0, 50.0]), SPREAD)
    assert ends.tolist() == pytest.approx([1.0, 0.01])


def test_a_weight_is_twice_what_q_leaves_to_one():
    psi = column([-0.7, -0.1, 0.2, 0.9])
    weights, q = losses.pair_weights(psi, 0.4), losses.pair_coefficients(psi, 0.4)
    assert torch.allclose(weights, 2 * (1 - q), rtol=1e-12)
    assert losses.pair_weights(torch.cat([psi, -psi]), 0.4).mean().item() == pytest.approx(1.0)


def test_a_spread_below_its_limit_counts_as_the_limit():
    for reading in (losses.pair_weights, losses.pair_coefficients):
        at_limit = reading(column(PSI), losses.SMALLEST_SPREAD)
        for spread in (0.0, 1e-9, torch.tensor(0.01)):
            assert torch.equal(reading(column(PSI), spread), at_limit)
        assert not torch.equal(reading(column(PSI), 0.06), at_limit)


def test_readings_of_pairs_keep_nan_carry_no_gradient_and_refuse_a_wrong_ramp():
    psi = column([float("nan"), 1.0]).requires_grad_()
    for reading in (losses.pair_weights, losses.pair_coefficients):
        values = reading(psi, 1.0)
        assert values[0].isnan() and values[1].isfinite() and not values.requires_grad
        assert reading(psi, float("nan")).isnan().all()
    with pytest.raises(ValueError, match=r"ramp is 1.5; it must lie in \[0, 1\]"):
        losses.pair_weights(psi, 1.0, ramp=1.5)


def test_the_running_spread_is_the_weighted_mean_of_all_steps():
    sizes, spread = [0.2, 0.8, 0.5, 1.1], 0.0
    for count, size in enumerate(sizes, 1):
        spread = losses.running_spread(spread, size, count)
        parts = [0.9 ** (count - n) for n in range(1, count + 1)]
        expected = sum(p * x for p, x in zip(parts, sizes, strict=False)) / sum(parts)
        assert spread == pytest.approx(expected)
    assert losses.running_spread(123.0, 0.2, 1) == pytest.approx(0.2)  # the first step forgets it


def test_neither_coefficient_nor_weights_carry_a_gradient():
    psi = column([0.5, 2.0]).requires_grad_()
    q = losses.robustness_coefficient(psi, 0.5)
    assert not q.requires_grad and not losses.dynamic_weights(psi).requires_grad
    live_q = column([0.3]).requires_grad_()
    losses.napo_loss(psi, live_q).sum().backward()
    assert live_q.grad is None


@pytest.mark.parametrize("alpha", [1.0, 2.0, 14.0])
def test_ropo_weighs_no_pair_above_one(alpha):
    psi = torch.linspace(-8, 8, 4001, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(other_losses.ropo_loss(psi, alpha).sum(), psi)
    assert gradient.min().item() == pytest.approx(-1, abs=1e-3)


def test_beta_dpo_scales_the_margins_by_their_mean():
    psi = column([0.5, 1.5])
    matches(other_losses.beta_dpo_loss(psi, 0.6, 0.1), losses.dpo_loss(1.6 * psi))  # 1 + 0.6 * 1


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_beta_dpo_cuts_the_scaled_beta_at_one_thousandth(beta):
    psi = column([-60.0, -40.0])  # beta (1 - 0.6 * 50) would turn the pairs round
    expected = losses.dpo_loss(1e-3 * psi / beta)  # psi / beta is the margin without beta
    matches(other_losses.beta_dpo_loss(psi, 0.6, beta), expected)


def test_reward_margin_widens_half_precision_before_it_subtracts():
    # 1000.5 - 1000 is lost in bfloat16, whose neighbours of 1000 are 4 apart.
    chosen, rejected = torch.tensor([-100.0]).bfloat16(), torch.tensor([-1000.0]).bfloat16()
    base = torch.tensor([-0.25]).bfloat16()
    psi = losses.reward_margin(chosen, rejected, base, 2 * base, beta=1.0)
    assert psi.dtype == torch.float32 and psi.item() == -99.75 - (-1000.0 + 0.5)


@pytest.mark.parametrize("margin", [0, 2])
def test_whole_numbers_are_margins_too(margin):
    expected = float(sigmoid(-mpmath.mpf("0.5") * margin))
    assert losses.robustness_coefficient(margin, 0.5).item() == pytest.approx(expected)
    loss = losses.napo_loss(torch.tensor([margin]), 1)
    assert loss.item() == pytest.approx(float(sigmoid(-margin)))


@pytest.mark.kind("fidelity: a loss outside its range")
@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda psi: losses.napo_loss(psi, -0.1), r"q is -0.1; it must lie in \[0, 1\]"),
        (lambda psi: losses.napo_loss(psi, 1.5), "q is 1.5"),
        (lambda psi: losses.napo_loss(psi, float("nan")), "q is nan"),
        (lambda psi: losses.napo_loss(psi, torch.tensor([0.5, 2.0])), "q is 2"),
        (lambda psi: losses.reward_margin(*[psi] * 4, beta=0.0), r"beta is 0; .* \(0, inf\)"),
        (lambda psi: losses.robustness_coefficient(psi, -0.5), r"alpha is -0.5; .* \[0, inf\)"),
        (lambda psi: losses.robustness_coefficient(psi, float("inf")), "alpha is inf"),
        (lambda psi: losses.robustness_coefficient(psi, 0.5, "both"), "must be paper or released"),
        (
            lambda psi: losses.dynamic_weights(psi, "tempered", temper=0.0),
            r"temper is 0; .* \(0, 1\]",
        ),
        (lambda psi: other_losses.cdpo_loss(psi, 0.5), r"label_smoothing is 0.5; .* \[0, 0.5\)"),
        (lambda psi: other_losses.cdpo_loss(psi, -0.1), "label_smoothing is -0.1"),
        (lambda psi: other_losses.rdpo_loss(psi, 0.5), "label_smoothing is 0.5"),
        (lambda psi: other_losses.ipo_loss(psi, 0.0), "beta is 0"),
        (lambda psi: other_losses.drdpo_loss(psi, 0.0), "strength is 0"),
        (lambda psi: other_losses.ropo_loss(psi, -1.0), "strength is -1"),
        (lambda psi: other_losses.beta_dpo_loss(psi, -0.6, 0.1), "strength is -0.6"),
        (lambda psi: other_losses.beta_dpo_loss(psi, 0.6, 0.0), "beta is 0"),
    ],
)
def test_an_argument_outside_its_range_is_one_sentence(call, sentence, result):
    with pytest.raises(ValueError, match=sentence) as caught:
        call(column([0.5, 2.0]))
    result(caught.value)


def test_a_margin_that_is_nan_gives_a_loss_that_is_nan():
    psi = column([float("nan"), 1.0])
    assert losses.napo_loss(psi, losses.robustness_coefficient(psi, 0.5)).isnan().all()


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_margins_that_are_no_numbers_do_not_become_uniform_weights(lost):
    assert losses.dynamic_weights(column([lost, 1.0])).isnan().any()

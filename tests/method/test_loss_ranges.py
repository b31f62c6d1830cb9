"""Values and gradients of every loss in float32, |psi| up to 800, against mpmath's 60 digits."""

import math

import mpmath
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napo.method import losses, other_losses

mpmath.mp.dps = 60
SMALLEST = 2.0**-126  # of float32's normal numbers; below it digits are lost
VALUE, GRADIENT = 1e-6, 1e-5  # relative bounds
PSIS = [0.0, *(s * p for p in (1e-6, 0.4, 2.9, 4.2, 16.75, 60, 87, 104, 300, 800) for s in (1, -1))]
QS = [0.0, 1e-6, 1e-3, 0.01, 0.3, 0.5, 0.7, 0.99, 1.0]


def log_sigmoid(x):
    return -mpmath.log1p(mpmath.exp(-x))


def sigmoid(x):
    return mpmath.exp(log_sigmoid(x))


def close(actual, expected, bound, scale=0):
    """Each number within a relative bound of the expected one (or of a larger `scale`)."""
    for number, right in zip(actual.double().tolist(), expected, strict=True):
        size = max(abs(right), scale)
        limit = bound * size if size >= SMALLEST else 2 * SMALLEST
        assert math.isfinite(number) and abs(mpmath.mpf(number) - right) <= limit, (number, right)


def holds(loss, value, slope, psis, scale=0):
    """A loss of one pair has these values and gradients at float32 margins."""
    psi = torch.tensor(psis, dtype=torch.float32, requires_grad=True)
    exact = [mpmath.mpf(number) for number in psi.tolist()]
    output = loss(psi)
    (gradient,) = torch.autograd.grad(output.sum(), psi)
    close(output.detach(), map(value, exact), VALUE, scale)
    close(gradient, map(slope, exact), GRADIENT, scale)


def napo_holds(q, psis):
    number = mpmath.mpf(torch.tensor(q, dtype=torch.float32).item())

    def value(x):
        log_p = log_sigmoid(x)
        return -mpmath.expm1(number * log_p) / number if number else -log_p

    def slope(x):
        return -sigmoid(-x) * mpmath.exp(number * log_sigmoid(x))

    holds(lambda psi: losses.napo_loss(psi, q), value, slope, psis)


@pytest.mark.parametrize("q", QS)
@pytest.mark.kind("fidelity: a loss loses its digits")
def test_napo_is_exact_over_the_whole_range(q):
    napo_holds(q, PSIS)


@settings(max_examples=150, deadline=None)
@given(q=st.floats(0, 1, width=32), psi=st.floats(-800, 800, width=32))
@example(q=1.0, psi=-16.75)
@example(q=2.0**-149, psi=-800.0)
def test_napo_is_exact_at_any_margin_and_q(q, psi):
    napo_holds(q, [psi])


def test_napo_has_a_gradient_where_the_sigmoid_is_almost_0():
    psi = torch.tensor([-16.75], requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.napo_loss(psi, 1.0), psi)
    assert gradient.item() == pytest.approx(-5.316e-8, rel=1e-3)  # -e^-16.75


def test_napo_at_q_0_is_dpo_alone_and_among_others():
    psi = torch.tensor([-3.0, 0.5, 700.0], requires_grad=True)
    q = torch.tensor([0.0, 0.5, 0.0])
    loss = losses.napo_loss(psi, q)
    (gradient,) = torch.autograd.grad(loss.sum(), psi)
    dpo = losses.dpo_loss(psi)
    (slope,) = torch.autograd.grad(dpo.sum(), psi)
    assert torch.equal(loss[::2], dpo[::2]) and torch.equal(gradient[::2], slope[::2])
    assert torch.equal(loss[1:2], losses.napo_loss(psi[1:2], 0.5))
    assert torch.equal(losses.napo_loss(psi, 0.0), dpo)


@pytest.mark.kind("fidelity: a loss loses its digits")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (losses.dpo_loss, ()),
        (losses.mae_loss, ()),
        (losses.napo_loss, (0.3,)),
        (other_losses.cdpo_loss, (0.1,)),
        (other_losses.rdpo_loss, (0.1,)),
        (other_losses.ipo_loss, (0.1,)),
        (other_losses.drdpo_loss, (0.5,)),
        (other_losses.ropo_loss, (2.0,)),
        (other_losses.beta_dpo_loss, (0.6, 0.1)),
    ],
)
def test_half_precision_is_computed_as_float32(dtype, function, arguments):
    psi = torch.tensor(PSIS, dtype=dtype, requires_grad=True)
    loss = function(psi, *arguments)
    (gradient,) = torch.autograd.grad(loss.sum(), psi)
    assert gradient.isfinite().all()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert torch.equal(loss, function(psi.float(), *arguments))


@pytest.mark.parametrize("alpha", [1.0, 2.0, 14.0])
@pytest.mark.kind("fidelity: a loss loses its digits")
def test_dpo_mae_and_ropo_are_exact_over_the_whole_range(alpha):
    def mae_slope(x):
        return -sigmoid(-x) * sigmoid(x)

    scale = mpmath.mpf(4 * alpha / (1 + alpha) ** 2)
    holds(losses.dpo_loss, lambda x: -log_sigmoid(x), lambda x: -sigmoid(-x), PSIS)
    holds(losses.mae_loss, lambda x: sigmoid(-x), mae_slope, PSIS)
    holds(
        lambda psi: other_losses.ropo_loss(psi, alpha),
        lambda x: scale * (-log_sigmoid(x) + alpha * sigmoid(-x)),
        lambda x: scale * (-sigmoid(-x) + alpha * mae_slope(x)),
        PSIS,
    )


@pytest.mark.parametrize("e", [0.0, 0.1, 0.49])
@pytest.mark.kind("fidelity: a loss loses its digits")
def test_losses_with_a_flip_rate_are_exact_over_the_whole_range(e):
    """Their gradients and rDPO's value cross 0, so the bound is relative to their parts."""
    kept, flipped = mpmath.mpf(1) - mpmath.mpf(e), mpmath.mpf(e)
    span = 1 - 2 * flipped
    holds(
        lambda psi: other_losses.cdpo_loss(psi, e),
        lambda x: -kept * log_sigmoid(x) - flipped * log_sigmoid(-x),
        lambda x: -kept * sigmoid(-x) + flipped * sigmoid(x),
        PSIS,
        scale=1 if e else 0,
    )
    holds(
        lambda psi: other_losses.rdpo_loss(psi, e),
        lambda x: (-kept * log_sigmoid(x) + flipped * log_sigmoid(-x)) / span,
        lambda x: (-kept * sigmoid(-x) - flipped * sigmoid(x)) / span,
        PSIS,
        scale=400 / span if e else 0,
    )


def drdpo_holds(psis, strength):
    psi = torch.tensor(psis, dtype=torch.float32, requires_grad=True)
    exact, s = [log_sigmoid(mpmath.mpf(x)) for x in psi.tolist()], mpmath.mpf(strength)
    output = other_losses.drdpo_loss(psi, strength)
    (gradient,) = torch.autograd.grad(output.mean(), psi)
    total = mpmath.fsum(mpmath.exp(x / s) for x in exact)
    close(output.detach(), [-s * mpmath.log(total / len(psis))] * len(psis), VALUE)
    slopes = [
        -mpmath.exp(x / s) / total * sigmoid(-mpmath.mpf(m))
        for x, m in zip(exact, psi.tolist(), strict=True)
    ]
    close(gradient, slopes, GRADIENT, scale=max(map(abs, slopes)))


@pytest.mark.parametrize(
    "psis",
    [[-104.0], [-800.0], [800.0], [-800.0, 800.0], [20.0, 21.0], [-700.0, -699.0, -104.0], PSIS],
)
@pytest.mark.parametrize("strength", [0.1, 1.0, 7.0])
@pytest.mark.kind("fidelity: a loss loses its digits")
def test_drdpo_is_exact_over_the_whole_range(psis, strength):
    drdpo_holds(psis, strength)


@settings(max_examples=60, deadline=None)
@given(
    psis=st.lists(st.floats(-800, 800, width=32), min_size=1, max_size=6),
    strength=st.sampled_from([0.125, 0.5, 1.0, 4.0]),
)
def test_drdpo_is_exact_for_any_batch(psis, strength):
    drdpo_holds(psis, strength)


def test_drdpo_of_one_hopeless_pair_is_dpo():
    psi = torch.tensor([-104.0], requires_grad=True)
    loss = other_losses.drdpo_loss(psi, 1.0)
    (gradient,) = torch.autograd.grad(loss, psi)
    assert (loss.item(), gradient.item()) == (104.0, -1.0)


@pytest.mark.parametrize("psis", [[-800.0, -700.0], [800.0], [-800.0, 800.0, 3.0]])
def test_ipo_and_beta_dpo_stay_finite_over_the_whole_range(psis):
    psi = torch.tensor(psis, requires_grad=True)
    for loss in (other_losses.ipo_loss(psi, 0.1), other_losses.beta_dpo_loss(psi, 0.6, 0.1)):
        (gradient,) = torch.autograd.grad(loss.sum(), psi)
        assert loss.isfinite().all() and gradient.isfinite().all()

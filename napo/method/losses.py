"""The paper's losses: pure functions of tensors, one value per example, no reduction.

A margin comes first (`reward_margin`, Eq. 2); a loss takes margins. What is averaged over a batch
(the coefficient q, the weights gamma) is a function of its own and never carries a gradient.

Values and gradients keep their digits in float32 for margins from -800 to 800; half precision is
widened. A number outside its range is a ValueError. A tensor on a GPU is not checked, because
reading it would stall the GPU.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

# Where q and gamma are cut off: §4.1, and the released code's own lower end for q.
Q_RANGE = {"paper": (0.01, 1.0), "released": (0.001, 1.0)}
GAMMA_RANGE = (0.01, 1.0)


def reward_margin(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Reward margin psi of a preference pair (Eq. 2).

    Sums of token log-probs give psi_sum, means over tokens psi_mean.

    Args:
        policy_chosen_logps: log pi_theta(y_w|x), shape (batch,).
        policy_rejected_logps: log pi_theta(y_l|x), shape (batch,).
        reference_chosen_logps: log pi_ref(y_w|x), shape (batch,).
        reference_rejected_logps: log pi_ref(y_l|x), shape (batch,).
        beta: scale of the reward, positive; 1 gives the plain difference of log-ratios.

    Returns:
        psi, shape (batch,), in float32 or wider.

    Raises:
        ValueError: if beta is not positive and finite.
    """
    require_range("beta", beta, 0, inf, "()")
    chosen = wide(policy_chosen_logps) - wide(reference_chosen_logps)
    rejected = wide(policy_rejected_logps) - wide(reference_rejected_logps)
    return beta * (chosen - rejected)


def dpo_loss(psi: Tensor) -> Tensor:
    """DPO's binary cross-entropy -log sigmoid(psi) (Eq. 3).

    Args:
        psi: reward margins, shape (batch,).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    return -logsigmoid(wide(psi))


def napo_loss(psi: Tensor, q: Tensor | float) -> Tensor:
    """NaPO's negative Box-Cox loss (1 - sigmoid(psi)^q) / q (Eq. 9).

    It is DPO at q = 0, its limit (Eq. 10), and the mean absolute error at q = 1, and lies between
    them (Eq. 11). Written as -expm1(q log sigmoid(psi)) / q it keeps its digits where
    sigmoid(psi)^q is close to 1 and where sigmoid(psi) underflows.

    Args:
        psi: reward margins, shape (batch,).
        q: robustness coefficient in [0, 1], a scalar or of shape (batch,); its gradient is cut.

    Returns:
        The loss, shape (batch,), in float32 or wider.

    Raises:
        ValueError: if q lies outside [0, 1].
    """
    require_range("q", q, 0, 1, "[]")
    psi = wide(psi)
    q = torch.as_tensor(q, dtype=psi.dtype, device=psi.device).detach()
    log_sigmoid = logsigmoid(psi)
    power = q * log_sigmoid
    # Up to here the loss equals DPO's to all digits; below, q or the power itself can underflow.
    near_dpo = power > -1e-30
    # Torch's gradient of expm1 is its value plus 1, which is 0 once the value rounds to -1.
    kept = torch.exp(power)
    lost = torch.where(kept < few_bits(psi.dtype), 1 - kept, -torch.expm1(power))
    return torch.where(near_dpo, -log_sigmoid, lost / torch.where(near_dpo, 1, q))


def mae_loss(psi: Tensor) -> Tensor:
    """Mean absolute error 1 - sigmoid(psi), the noise-robust end of NaPO (Eqs. 4 and 11).

    Args:
        psi: reward margins, shape (batch,).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    psi = wide(psi)
    # Torch's gradient of a sigmoid is 0 once its value rounds to 1.
    kept = torch.sigmoid(psi)
    return torch.where(kept < few_bits(psi.dtype), 1 - kept, torch.sigmoid(-psi))


def robustness_coefficient(margin: Tensor | float, alpha: float, rule: str = "paper") -> Tensor:
    """Adaptive noise-robustness coefficient q from the batch-average margin (Eq. 12).

    Args:
        margin: the batch average, a scalar; anything longer is averaged first. Rule "paper" means
            psi of Eq. 2, with beta; rule "released" means the plain difference of log-ratios.
        alpha: scale of the margin, not negative (§4.1: 0.5 with psi_mean, 0.01 with psi_sum).
        rule: "paper": 1 - sigmoid(alpha psi), cut to [0.01, 1]; "released": twice that, cut to
            [0.001, 1].

    Returns:
        q, a scalar without gradient; NaN for a margin that is NaN.

    Raises:
        ValueError: if alpha is negative or not finite, or for an unknown rule.
    """
    require_range("alpha", alpha, 0, inf, "[)")
    if rule not in Q_RANGE:
        raise ValueError(f"rule must be paper or released, not {rule!r}")
    margin = wide(torch.as_tensor(margin)).detach().mean()
    scale = {"paper": 1.0, "released": 2.0}[rule]
    return (scale * torch.sigmoid(-alpha * margin)).clamp(*Q_RANGE[rule])


def dynamic_weights(psi_sums: Tensor, rule: str = "margin", floor: float = 0.0) -> Tensor:
    """Weights gamma of the terms of the objective (Eq. 13).

    Args:
        psi_sums: batch-average psi_sum of each term, shape (terms,).
        rule: "margin": each term's share of the total margin, cut to [0.01, 1] and not renormalised
            after it, and uniform while the total is not positive, as at the first step, where every
            margin is 0; "uniform": 1 / terms; "none": 1 each, a plain sum.
        floor: a total up to this counts as not positive, because it may be noise: shares of
            rounding errors would be arbitrary weights.

    Returns:
        gamma, shape (terms,), without gradient; NaN if a margin is NaN.

    Raises:
        ValueError: for an unknown rule.
    """
    psi_sums = wide(psi_sums).detach()
    uniform = torch.full_like(psi_sums, 1 / psi_sums.numel())
    if rule == "none":
        return torch.ones_like(psi_sums)
    if rule == "uniform":
        return uniform
    if rule != "margin":
        raise ValueError(f"rule must be margin, uniform or none, not {rule!r}")
    total = psi_sums.sum()
    positive = ~(total <= floor)  # true for NaN, which must not become uniform weights
    # The inner where keeps a total of 0 out of the division; no value of the device is read back.
    shares = psi_sums / torch.where(positive, total, torch.ones_like(total))
    return torch.where(positive, shares, uniform).clamp(*GAMMA_RANGE)


def wide(value: Tensor) -> Tensor:
    """Integers and half precision as float32: 16 bits cannot tell 1 from sigmoid(8)."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def few_bits(dtype: torch.dtype) -> float:
    """A number p below this has fewer than 18 bits left in 1 - p (0.016 in float32)."""
    return 2**17 * torch.finfo(dtype).eps


def require_range(name: str, value: Tensor | float, low: float, high: float, ends: str) -> None:
    """Refuse a number that lies outside its interval.

    Args:
        name: of the parameter.
        value: a number, or a tensor. A tensor on a GPU passes unread, and NaN in a tensor passes
            into the loss, as from a margin that is NaN.
        low: lower bound.
        high: upper bound.
        ends: two brackets, such as "(]"; a square one includes its bound.

    Raises:
        ValueError: naming parameter, value and interval; for a plain number NaN, too.
    """
    values = [value]
    if isinstance(value, Tensor):
        values = value[~value.isnan()].tolist() if value.device.type == "cpu" else []
    for number in values:
        above = number >= low if ends[0] == "[" else number > low
        below = number <= high if ends[1] == "]" else number < high
        if not (above and below):
            interval = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
            raise ValueError(f"{name} is {number:g}; it must lie in {interval}.")

"""The paper's losses: pure functions of tensors, one value per example, no reduction.

A margin comes first (`reward_margin`, Eq. 2); a loss takes margins. What is averaged over a batch
(the coefficient q, the weights gamma) is a function of its own and never carries a gradient. Nor do
the weights and coefficients of single pairs (`pair_weights`, `pair_coefficients`).

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

SMALLEST_SPREAD = 0.05  # nats; below it margins are noise, and scaling them up would be, too
SPREAD_DECAY = 0.9  # of the running spread: a memory of about ten steps
RAMP = 1 / 3  # share of the run in which the weights of pairs are ramped in


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


def dynamic_weights(
    margins: Tensor, rule: str = "margin", floor: float = 0.0, temper: float = 0.5
) -> Tensor:
    """Weights gamma of the terms of the objective (Eq. 13).

    Args:
        margins: batch-average psi_sum of each term (psi_mean for a gamma of "mean-margin"), shape
            (terms,).
        rule: "margin": each term's share of the total margin, cut to [0.01, 1] and not renormalised
            after it, and uniform while the total is not positive, as at the first step, where every
            margin is 0; "tempered": the same with shares of margin^temper, which lets no single
            term take over as fast; "uniform": 1 / terms; "none": 1 each, a plain sum.
        floor: a total up to this counts as not positive, because it may be noise: shares of
            rounding errors would be arbitrary weights. "tempered" counts a term's margin up to this
            as 0.
        temper: the power of "tempered", in (0, 1]; 0 would be uniform, and 1 is "margin" where no
            margin is negative.

    Returns:
        gamma, shape (terms,), without gradient; NaN if a margin is NaN.

    Raises:
        ValueError: for an unknown rule, or a temper outside (0, 1].
    """
    require_range("temper", temper, 0, 1, "(]")
    margins = wide(margins).detach()
    uniform = torch.full_like(margins, 1 / margins.numel())
    if rule == "none":
        return torch.ones_like(margins)
    if rule == "uniform":
        return uniform
    if rule not in ("margin", "tempered"):
        raise ValueError(f"rule must be margin, tempered, uniform or none, not {rule!r}")
    positive = ~(margins.sum() <= floor)  # true for NaN, which must not become uniform weights
    if rule == "tempered":
        margins = margins.masked_fill(margins <= floor, 0.0) ** temper
    # The inner where keeps a total of 0 out of the division; no value of the device is read back.
    total = margins.sum()
    shares = margins / torch.where(positive, total, torch.ones_like(total))
    return torch.where(positive, shares, uniform).clamp(*GAMMA_RANGE)


def pair_coefficients(psi: Tensor, spread: Tensor | float) -> Tensor:
    """The coefficient q of each pair: Eq. 12 without the average over the batch.

    Eq. 12 is q = sigmoid(-alpha psi). With alpha 0.01 (§4.1) alpha psi stays near 0, and q near
    0.5: psi = 10 nats gives 0.475. Here alpha = 2 / spread, so q follows the sign and the relative
    size of a pair's own margin, whatever the scale of the margins: 0.12 for a pair whose margin is
    as large as the spread, 0.88 for one with its negative.

    Args:
        psi: the policy's own psi_sum of each pair, shape (batch,).
        spread: a typical |psi_sum|, a scalar, in nats (`running_spread`); at least 0.05 is used.

    Returns:
        q, shape (batch,), cut to [0.01, 1], without gradient; NaN for a margin that is NaN.
    """
    return torch.sigmoid(-_relative(psi, spread)).clamp(*Q_RANGE["paper"])


def pair_weights(psi: Tensor, spread: Tensor | float, ramp: float = 1.0) -> Tensor:
    """The weight of each pair's loss: the idea of Eq. 13 for pairs in place of terms.

    Eq. 13 trusts a term by its share of the margins. A share of a single pair would be negative
    where its margin is, so trust is 1 - q here, with q = sigmoid(-2 psi / spread) as in
    `pair_coefficients`. The weight is 2 (1 - q) = 2 sigmoid(2 psi / spread) = 1 + tanh(psi /
    spread). It lies between 0 and 2, is 1 at psi = 0, and 1 on average where margins lie evenly
    around 0. A pair that the policy contradicts, which may be noise, gets a smaller weight. As
    training makes most margins positive, the average rises towards 2; Adam divides such a common
    factor out of its steps.

    Args:
        psi: the policy's own psi_sum of each pair, shape (batch,).
        spread: as in `pair_coefficients`.
        ramp: from 0 (all weights are 1) to 1. It is raised over the first third of a run
            (`RAMP`), while margins say more about the noise of the steps than about the pairs.

    Returns:
        Weights, shape (batch,), without gradient; NaN for a margin that is NaN.

    Raises:
        ValueError: if ramp lies outside [0, 1].
    """
    require_range("ramp", ramp, 0, 1, "[]")
    return (1 - ramp) + ramp * 2 * torch.sigmoid(_relative(psi, spread))


def running_spread(spread: float, size: float, count: int) -> float:
    """The exponential running mean of |psi_sum|, without its bias towards 0, after one more step.

    It equals (1 - d) (x_n + d x_{n-1} + ... + d^{n-1} x_1) / (1 - d^n), with d = `SPREAD_DECAY`.

    Args:
        spread: its value before; not used at the first step.
        size: x_n, the mean |psi_sum| of the step's pairs.
        count: n, the number of steps with this one.
    """
    return spread + (size - spread) * (1 - SPREAD_DECAY) / (1 - SPREAD_DECAY**count)


def _relative(psi: Tensor, spread: Tensor | float) -> Tensor:
    """alpha psi with alpha = 2 / spread; without gradient."""
    psi = wide(psi).detach()
    spread = torch.as_tensor(spread, dtype=psi.dtype, device=psi.device).detach()
    return 2 * psi / spread.clamp(min=SMALLEST_SPREAD)


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

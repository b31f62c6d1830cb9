"""The paper's losses: pure functions of tensors, one value per example, no reduction.

A margin comes first (`reward_margin`, Eq. 2); a loss takes margins. What is averaged over a batch
(the coefficient q, the weights gamma) is a function of its own and never carries a gradient.
"""

from __future__ import annotations

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
        beta: scale of the reward; 1 gives the plain difference of log-ratios.

    Returns:
        psi, shape (batch,).
    """
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    return beta * (chosen - rejected)


def dpo_loss(psi: Tensor) -> Tensor:
    """DPO's binary cross-entropy -log sigmoid(psi) (Eq. 3).

    Args:
        psi: reward margins, shape (batch,).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    return -logsigmoid(_wide(psi))


def napo_loss(psi: Tensor, q: Tensor | float) -> Tensor:
    """NaPO's negative Box-Cox loss (1 - sigmoid(psi)^q) / q (Eq. 9).

    It is DPO for q -> 0 and the mean absolute error at q = 1, and lies between them (Eq. 11).
    Written as -expm1(q log sigmoid(psi)) / q it keeps its digits where sigmoid(psi)^q is close
    to 1 and where sigmoid(psi) underflows.

    Args:
        psi: reward margins, shape (batch,).
        q: robustness coefficient in (0, 1], a scalar or of shape (batch,); its gradient is cut.

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    psi = _wide(psi)
    q = torch.as_tensor(q, dtype=psi.dtype, device=psi.device).detach()
    return -torch.expm1(q * logsigmoid(psi)) / q


def mae_loss(psi: Tensor) -> Tensor:
    """Mean absolute error 1 - sigmoid(psi), the noise-robust end of NaPO (Eqs. 4 and 11).

    Args:
        psi: reward margins, shape (batch,).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    return torch.sigmoid(-_wide(psi))


def cdpo_loss(psi: Tensor, label_smoothing: float) -> Tensor:
    """Conservative DPO: cross-entropy with labels flipped at a known rate (Mitchell 2023, note).

    Args:
        psi: reward margins, shape (batch,).
        label_smoothing: assumed share of flipped pairs, in [0, 0.5).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    psi = _wide(psi)
    return -(1 - label_smoothing) * logsigmoid(psi) - label_smoothing * logsigmoid(-psi)


def rdpo_loss(psi: Tensor, label_smoothing: float) -> Tensor:
    """Robust DPO: DPO made unbiased under flipped pairs (Chowdhury et al. 2024).

    Args:
        psi: reward margins, shape (batch,).
        label_smoothing: assumed share of flipped pairs, in [0, 0.5).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    psi = _wide(psi)
    kept = -(1 - label_smoothing) * logsigmoid(psi)
    flipped = label_smoothing * logsigmoid(-psi)
    return (kept + flipped) / (1 - 2 * label_smoothing)


def ipo_loss(log_ratio_difference: Tensor, beta: float) -> Tensor:
    """IPO, the squared distance of the margin to 1 / (2 beta) (Azar et al. 2024, Eq. 17).

    Args:
        log_ratio_difference: the margin without beta (`reward_margin` with beta=1), shape
            (batch,).
        beta: strength of the regularisation (tau in the source).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    return (_wide(log_ratio_difference) - 1 / (2 * beta)) ** 2


def drdpo_loss(psi: Tensor, beta_prime: float, log_mean: Tensor | None = None) -> Tensor:
    """Dr. DPO, -beta' log mean exp(log sigmoid(psi) / beta') (Wu et al. 2025, Eq. 12).

    The source's loss belongs to a batch: pairs that the model finds improbable count less. Every
    example gets the batch's value, and the gradient of its own share of it.

    Args:
        psi: reward margins, shape (batch,).
        beta_prime: how far the weights may lean; DPO as it grows.
        log_mean: log of the average of exp(log sigmoid(psi) / beta') over the batch of all
            processes, a scalar; of this batch by default.

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    likelihood = logsigmoid(_wide(psi))
    if log_mean is None:
        log_mean = drdpo_likelihood(psi, beta_prime).mean().log()
    weight = torch.exp(likelihood / beta_prime - log_mean).detach()
    return -beta_prime * log_mean.detach() - weight * (likelihood - likelihood.detach())


def drdpo_likelihood(psi: Tensor, beta_prime: float) -> Tensor:
    """What Dr. DPO averages over a batch: sigmoid(psi)^(1 / beta'), shape (batch,), no gradient."""
    return torch.exp(logsigmoid(_wide(psi)) / beta_prime).detach()


def ropo_loss(psi: Tensor, alpha: float) -> Tensor:
    """ROPO's loss: DPO and alpha times the mean absolute error, scaled (Liang et al. 2024).

    The scale 4 alpha / (1 + alpha)^2 makes the largest weight that a pair can get equal to 1. The
    source's other half, sampling and dropping pairs, is not part of a loss.

    Args:
        psi: reward margins, shape (batch,).
        alpha: share of the noise-tolerant part, at least 1.

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    return 4 * alpha / (1 + alpha) ** 2 * (dpo_loss(psi) + alpha * mae_loss(psi))


def dynamic_beta(margin: Tensor | float, strength: float, threshold: float = 0.0) -> Tensor:
    """beta-DPO's factor on beta, 1 + strength (M - M0) (Wu et al. 2024).

    The source moves the threshold M0 along with the run; here it is a constant, so that a loss
    depends on its batch alone. Its filter of pairs is left out.

    Args:
        margin: the batch-average reward margin M; anything longer is averaged first.
        strength: how much beta follows the margin (alpha in the source).
        threshold: the margin M0 at which beta stays as it is.

    Returns:
        The factor, a scalar without gradient, at least 0.001 so that no pair is turned round.
    """
    margin = _wide(torch.as_tensor(margin)).detach().mean()
    return (1 + strength * (margin - threshold)).clamp_min(1e-3)


def robustness_coefficient(margin: Tensor | float, alpha: float, rule: str = "paper") -> Tensor:
    """Adaptive noise-robustness coefficient q from the batch-average margin (Eq. 12).

    Args:
        margin: the batch average, a scalar; anything longer is averaged first. Rule "paper" means
            psi of Eq. 2, with beta; rule "released" means the plain difference of log-ratios.
        alpha: scale of the margin (§4.1: 0.5 with psi_mean, 0.01 with psi_sum).
        rule: "paper": 1 - sigmoid(alpha psi), cut to [0.01, 1]; "released": twice that, cut to
            [0.001, 1].

    Returns:
        q, a scalar without gradient.
    """
    margin = _wide(torch.as_tensor(margin)).detach().mean()
    scale = {"paper": 1.0, "released": 2.0}[rule]
    return (scale * torch.sigmoid(-alpha * margin)).clamp(*Q_RANGE[rule])


def dynamic_weights(psi_sums: Tensor, rule: str = "margin", floor: float = 0.0) -> Tensor:
    """Weights gamma of the terms of the objective (Eq. 13).

    Args:
        psi_sums: batch-average psi_sum of each term, shape (terms,).
        rule: "margin": each term's share of the total margin, cut to [0.01, 1] and not renormalised
            after it, and uniform while the total is not positive, as at the first step, where every
            margin is 0; "uniform": 1 / terms; "none": 1 each, a plain sum.
        floor: a total up to this counts as not positive. At the first step the margins are 0 but
            for rounding, whose shares would be any numbers.

    Returns:
        gamma, shape (terms,), without gradient.
    """
    psi_sums = _wide(psi_sums).detach()
    uniform = torch.full_like(psi_sums, 1 / psi_sums.numel())
    if rule == "none":
        return torch.ones_like(psi_sums)
    if rule == "uniform":
        return uniform
    if rule != "margin":
        raise ValueError(f"rule must be margin, uniform or none, not {rule!r}")
    total = psi_sums.sum()
    positive = total > floor
    # The inner where keeps a total of 0 out of the division; no value of the device is read back.
    shares = psi_sums / torch.where(positive, total, torch.ones_like(total))
    return torch.where(positive, shares, uniform).clamp(*GAMMA_RANGE)


def _wide(value: Tensor) -> Tensor:
    """Half precision as float32: 16 bits cannot hold the difference between 1 and sigmoid(8)."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

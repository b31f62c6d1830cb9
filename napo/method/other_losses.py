"""Losses that the paper does not use, for comparison with NaPO.

As in `napo.method.losses`, they take margins psi of shape (batch,) and give a loss of the same
shape, in float32 or wider; a number outside its range is a ValueError. Each replaces NaPO in a
variant of its own (`napo.config.variants`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from napo.method.losses import dpo_loss, mae_loss, require_range, wide


def cdpo_loss(psi: Tensor, label_smoothing: float) -> Tensor:
    """Conservative DPO: cross-entropy with labels flipped at a known rate (Mitchell 2023, note).

    Args:
        psi: reward margins.
        label_smoothing: assumed share of flipped pairs, in [0, 0.5).
    """
    require_range("label_smoothing", label_smoothing, 0, 0.5, "[)")
    psi = wide(psi)
    return -(1 - label_smoothing) * logsigmoid(psi) - label_smoothing * logsigmoid(-psi)


def rdpo_loss(psi: Tensor, label_smoothing: float) -> Tensor:
    """Robust DPO: DPO made unbiased under flipped pairs (Chowdhury et al. 2024).

    Args:
        psi: reward margins.
        label_smoothing: assumed share of flipped pairs, in [0, 0.5).
    """
    require_range("label_smoothing", label_smoothing, 0, 0.5, "[)")
    psi = wide(psi)
    kept = -(1 - label_smoothing) * logsigmoid(psi)
    flipped = label_smoothing * logsigmoid(-psi)
    return (kept + flipped) / (1 - 2 * label_smoothing)


def ipo_loss(log_ratio_difference: Tensor, beta: float) -> Tensor:
    """IPO: squared distance of the margin to 1 / (2 beta) (Azar et al. 2024, Eq. 17).

    The source's margin is summed over tokens: the loss "ipo". TRL's `ipo` divides each log-ratio by
    the number of its tokens: the loss "ipo-mean". One target then asks for other margins.

    Args:
        log_ratio_difference: the margin without beta (`reward_margin` with beta=1).
        beta: strength of the regularisation (tau in the source), positive.
    """
    require_range("beta", beta, 0, inf, "()")
    return (wide(log_ratio_difference) - 1 / (2 * beta)) ** 2


def drdpo_loss(
    psi: Tensor,
    strength: float,
    average: Callable[[Tensor], Tensor] = torch.mean,
    largest: Callable[[Tensor], Tensor] = torch.amax,
) -> Tensor:
    """Dr. DPO: -beta' log mean exp(log sigmoid(psi) / beta') (Wu et al. 2025, Eq. 12).

    The source defines one loss for the batch, in which improbable pairs count less. Every example
    gets the batch's value and the gradient of its own share. The largest exponent is taken out of
    the mean, so that it neither underflows nor rounds to 1.

    Args:
        psi: reward margins.
        strength: beta', positive; the loss tends to DPO as it grows.
        average: the mean of a (batch,) tensor; in training over all processes.
        largest: the maximum of a (batch,) tensor; in training over all processes.
    """
    require_range("strength", strength, 0, inf, "()")
    log_sigmoid = logsigmoid(wide(psi))
    peak = largest(log_sigmoid.detach())
    exponent = (log_sigmoid.detach() - peak) / strength
    log_mean = torch.log1p(average(torch.expm1(exponent)))  # of exp(exponent)
    weight = torch.exp(exponent - log_mean)
    return -peak - strength * log_mean - weight * (log_sigmoid - log_sigmoid.detach())


def ropo_loss(psi: Tensor, strength: float) -> Tensor:
    """ROPO's loss: a scaled sum of DPO and the mean absolute error (Liang et al. 2024).

    The scale 4 alpha / (1 + alpha)^2 limits the weight of a pair to 1. ROPO's second part, which
    samples and drops pairs, is no loss and is left out.

    Args:
        psi: reward margins.
        strength: alpha, the factor of the mean absolute error, positive; at least 1 in the source.
    """
    require_range("strength", strength, 0, inf, "()")
    return 4 * strength / (1 + strength) ** 2 * (dpo_loss(psi) + strength * mae_loss(psi))


def beta_dpo_loss(
    psi: Tensor,
    strength: float,
    beta: float,
    average: Callable[[Tensor], Tensor] = torch.mean,
) -> Tensor:
    """beta-DPO: DPO with beta (1 + strength * M) for beta, M the batch margin (Wu et al. 2024).

    As in the source's code, the product is at least 0.001, so that no pair changes its sign. M is
    the mean of psi, where that code takes log-ratios without beta. The source also subtracts a
    running threshold from M and filters pairs. Both are left out, so that the loss depends on its
    batch only.

    Args:
        psi: reward margins.
        strength: alpha of the source, not negative; 0 gives DPO.
        beta: scale of the reward in psi, positive.
        average: the mean of a (batch,) tensor; in training over all processes.
    """
    require_range("strength", strength, 0, inf, "[)")
    require_range("beta", beta, 0, inf, "()")
    psi = wide(psi)
    factor = (1 + strength * average(psi.detach())).clamp_min(1e-3 / beta)
    return dpo_loss(factor * psi)

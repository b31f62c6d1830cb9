"""Losses that the paper does not use, for comparison with NaPO.

As in `napo.method.losses`, they take margins psi of shape (batch,) and give a loss of the same
shape, in float32 or wider. Each replaces NaPO in a variant of its own (`napo.config.variants`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from napo.method.losses import dpo_loss, mae_loss, wide


def cdpo_loss(psi: Tensor, label_smoothing: float) -> Tensor:
    """Conservative DPO: cross-entropy with labels flipped at a known rate (Mitchell 2023, note).

    Args:
        psi: reward margins.
        label_smoothing: assumed share of flipped pairs, in [0, 0.5).
    """
    psi = wide(psi)
    return -(1 - label_smoothing) * logsigmoid(psi) - label_smoothing * logsigmoid(-psi)


def rdpo_loss(psi: Tensor, label_smoothing: float) -> Tensor:
    """Robust DPO: DPO made unbiased under flipped pairs (Chowdhury et al. 2024)."""
    psi = wide(psi)
    kept = -(1 - label_smoothing) * logsigmoid(psi)
    flipped = label_smoothing * logsigmoid(-psi)
    return (kept + flipped) / (1 - 2 * label_smoothing)


def ipo_loss(log_ratio_difference: Tensor, beta: float) -> Tensor:
    """IPO: squared distance of the margin to 1 / (2 beta) (Azar et al. 2024, Eq. 17).

    Args:
        log_ratio_difference: the margin without beta (`reward_margin` with beta=1).
        beta: strength of the regularisation (tau in the source).
    """
    return (wide(log_ratio_difference) - 1 / (2 * beta)) ** 2


def drdpo_loss(
    psi: Tensor, strength: float, average: Callable[[Tensor], Tensor] = torch.mean
) -> Tensor:
    """Dr. DPO: -beta' log mean exp(log sigmoid(psi) / beta') (Wu et al. 2025, Eq. 12).

    The source defines one loss for the batch, in which improbable pairs count less. Every example
    gets the batch's value and the gradient of its own share.

    Args:
        psi: reward margins.
        strength: beta'; the loss tends to DPO as it grows.
        average: the mean of a (batch,) tensor; in training over all processes.
    """
    likelihood = logsigmoid(wide(psi))
    log_mean = average(torch.exp(likelihood / strength).detach()).log()
    weight = torch.exp(likelihood / strength - log_mean).detach()
    return -strength * log_mean - weight * (likelihood - likelihood.detach())


def ropo_loss(psi: Tensor, strength: float) -> Tensor:
    """ROPO's loss: a scaled sum of DPO and the mean absolute error (Liang et al. 2024).

    The scale 4 alpha / (1 + alpha)^2 limits the weight of a pair to 1. ROPO's second part, which
    samples and drops pairs, is no loss and is left out.

    Args:
        psi: reward margins.
        strength: alpha, the factor of the mean absolute error, at least 1.
    """
    return 4 * strength / (1 + strength) ** 2 * (dpo_loss(psi) + strength * mae_loss(psi))


def beta_dpo_loss(
    psi: Tensor, strength: float, average: Callable[[Tensor], Tensor] = torch.mean
) -> Tensor:
    """beta-DPO: beta is scaled by 1 + strength * M, M the batch margin (Wu et al. 2024).

    The source subtracts a running threshold from M and filters pairs. Both are left out, so that
    the loss depends on its batch only. The factor is at least 0.001: no pair changes its sign.

    Args:
        psi: reward margins.
        strength: alpha of the source; 0 gives DPO.
        average: the mean of a (batch,) tensor; in training over all processes.
    """
    factor = (1 + strength * wide(average(psi.detach()))).clamp_min(1e-3)
    return dpo_loss(factor * psi)

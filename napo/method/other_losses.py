"""Losses that the paper does not use, for comparison with NaPO.

As in `napo.method.losses`, they take margins and give one value per example. Each replaces NaPO in
a variant of its own (`napo.config.variants`).
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
        psi: reward margins, shape (batch,).
        label_smoothing: assumed share of flipped pairs, in [0, 0.5).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    psi = wide(psi)
    return -(1 - label_smoothing) * logsigmoid(psi) - label_smoothing * logsigmoid(-psi)


def rdpo_loss(psi: Tensor, label_smoothing: float) -> Tensor:
    """Robust DPO: DPO made unbiased under flipped pairs (Chowdhury et al. 2024).

    Args:
        psi: reward margins, shape (batch,).
        label_smoothing: assumed share of flipped pairs, in [0, 0.5).

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    psi = wide(psi)
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
    return (wide(log_ratio_difference) - 1 / (2 * beta)) ** 2


def drdpo_loss(
    psi: Tensor, strength: float, average: Callable[[Tensor], Tensor] = torch.mean
) -> Tensor:
    """Dr. DPO, -beta' log mean exp(log sigmoid(psi) / beta') (Wu et al. 2025, Eq. 12).

    The source's loss belongs to a batch: pairs that the model finds improbable count less. Every
    example gets the batch's value, and the gradient of its own share of it.

    Args:
        psi: reward margins, shape (batch,).
        strength: beta', how far the weights may lean; DPO as it grows.
        average: the mean of a (batch,) tensor, in training over the batch of all processes.

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    likelihood = logsigmoid(wide(psi))
    log_mean = average(torch.exp(likelihood / strength).detach()).log()
    weight = torch.exp(likelihood / strength - log_mean).detach()
    return -strength * log_mean - weight * (likelihood - likelihood.detach())


def ropo_loss(psi: Tensor, strength: float) -> Tensor:
    """ROPO's loss: DPO and alpha times the mean absolute error, scaled (Liang et al. 2024).

    The scale 4 alpha / (1 + alpha)^2 makes the largest weight that a pair can get equal to 1. The
    source's other half, sampling and dropping pairs, is not part of a loss.

    Args:
        psi: reward margins, shape (batch,).
        strength: alpha, share of the noise-tolerant part, at least 1.

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    return 4 * strength / (1 + strength) ** 2 * (dpo_loss(psi) + strength * mae_loss(psi))


def beta_dpo_loss(
    psi: Tensor, strength: float, average: Callable[[Tensor], Tensor] = torch.mean
) -> Tensor:
    """beta-DPO: DPO with beta scaled by the batch's margin (Wu et al. 2024).

    Args:
        psi: reward margins, shape (batch,).
        strength: alpha of the source, how much beta follows the margin.
        average: the mean of a (batch,) tensor, in training over the batch of all processes.

    Returns:
        The loss, shape (batch,), in float32 or wider.
    """
    return dpo_loss(dynamic_beta(average(psi.detach()), strength) * psi)


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
    margin = wide(torch.as_tensor(margin)).detach().mean()
    return (1 + strength * (margin - threshold)).clamp_min(1e-3)

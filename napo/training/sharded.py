"""Weights that DeepSpeed shares out or rounds: counted, gathered, and as one process saves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def size(weight: Tensor) -> int:
    """The number of values of a weight, also where ZeRO-3 holds a part of them."""
    return getattr(weight, "ds_numel", weight.numel())


@contextmanager
def gathered(weight: Tensor) -> Iterator[None]:
    """Have the whole of a weight that ZeRO-3 shares out. All processes have to take part."""
    if not hasattr(weight, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([weight]):
        yield


def whole_weights(model: nn.Module, keep: bool, trained_only: bool) -> dict[str, Tensor]:
    """The weights of a model that DeepSpeed trains, in float32 and on the CPU.

    With bf16, DeepSpeed computes with bfloat16 weights and trains float32 copies, which are the
    result. All processes have to take part.

    Args:
        model: the model inside DeepSpeed's engine.
        keep: whether this process needs the result; the others get an empty one.
        trained_only: leave frozen weights out.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    whole: dict[str, Tensor] = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        if trained_only and not weight.requires_grad:
            continue
        with torch.no_grad(), gathered(weight):
            rounded = weight.is_floating_point() and weight.dtype.itemsize < 4
            value = weight
            if rounded and weight.requires_grad:
                value = safe_get_full_fp32_param(weight)
            if keep:
                value = value.float() if rounded else value
                whole[name] = value.detach().to("cpu", copy=True)
    return whole

"""Checks of a training: something is trained, numbers are finite, the reference fits the model."""

from __future__ import annotations

import torch
from torch import nn

from napo.errors import NapoError
from napo.method.layout import Batch
from napo.method.tensors import LogProbs
from napo.training.sharded import gathered

NO_BACKWARD = (
    "flex_attention has no backward pass on a CPU, so nothing can be trained with it; set "
    "attention to sdpa, or train on a GPU."
)


class Diverged(NapoError):
    """A number is not finite. `NaPOTrainer.train` adds the step and the remedy."""


def check_log_probs(
    policy: LogProbs,
    batch: Batch,
    tolerance: float = float("inf"),
    adapter_off: bool = False,
) -> None:
    """Stop if a log-prob is not finite or too far from the reference's.

    Args:
        policy: log-probs under the model in training.
        batch: the rows, with the reference's log-probs.
        tolerance: maximum difference a token, in nats; before training the two are equal.
        adapter_off: whether the reference is the model with its adapter switched off.

    Raises:
        NapoError: naming the row and the response; a `Diverged` if the policy's is not finite.
    """
    difference = (policy.sum.detach() - batch.reference.sum).abs() / policy.tokens
    wrong = ~(difference <= tolerance) | ~policy.sum.isfinite()
    if not wrong.any():
        return
    row, response = wrong.nonzero()[0].tolist()
    place = f"row {batch.ids[row]}, {batch.responses[response]}"
    if not batch.reference.sum[row, response].isfinite():
        raise NapoError(
            f"The reference's log-probability is not a number ({place}); "
            "run notebooks/01_build_biased_data.ipynb again."
        )
    if not policy.sum[row, response].isfinite():
        raise Diverged(f"A log-probability is not a number ({place})")
    reason = (
        "the adapter does not start at zero (it was trained before, or its initial weights "
        "change the base), so the model without it is no reference; use reference cached on rows "
        "without the reference's columns."
        if adapter_off
        else "the reference belongs to another model, data or preprocessing; "
        "run notebooks/01_build_biased_data.ipynb again."
    )
    raise NapoError(
        f"Before training, model and reference differ by {difference[row, response]:.4f} a token "
        f"({place}): {reason}"
    )


def half_precision(dtype: str) -> str:
    """The sentence that refuses trained weights of a dtype of two bytes."""
    return (
        f"The weights to train are {dtype}, which rounds away nearly every step of the optimiser; "
        "set bf16 to true in a profile or RUN.yaml, which trains float32 weights with bfloat16 "
        "products, or load the model in float32."
    )


def check_trained(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, masters: bool = False
) -> None:
    """Stop if no weight would be trained, an optimiser lacks some, or they lose small steps.

    Args:
        model: the model, with its adapter.
        optimizer: a user's optimiser; by default all trained weights are optimised.
        masters: whether the launcher keeps float32 copies of the weights, as DeepSpeed does.

    Raises:
        NapoError: with the remedy.
    """
    trained = {id(weight) for weight in model.parameters() if weight.requires_grad}
    if not trained:
        raise NapoError(
            "Every weight of the model is frozen, so nothing would be trained; load its adapter "
            "with is_trainable=True, or give its base and a peft_config."
        )
    for weight in model.parameters():
        if weight.requires_grad and weight.dtype.itemsize < 4 and not masters:
            raise NapoError(half_precision(str(weight.dtype).removeprefix("torch.")))
    groups = optimizer.param_groups if optimizer else ()
    optimised = {id(weight) for group in groups for weight in group["params"]}
    if optimizer and trained - optimised:
        raise NapoError(
            f"The optimiser in optimizers lacks {len(trained - optimised)} of the "
            f"{len(trained)} trained weights; give optimizer_cls_and_kwargs, or make it from the "
            "model with its adapter."
        )


def check_weights(model: nn.Module) -> None:
    """Stop before weights that are not finite replace a checkpoint.

    Raises:
        Diverged: if a trained weight is not finite.
    """
    for weight in model.parameters():
        if weight.requires_grad:
            with gathered(weight):
                if not weight.isfinite().all():
                    raise Diverged("A weight is not finite")

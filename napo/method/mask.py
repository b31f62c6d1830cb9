"""What lets responses share a prefix: a mask of their own, positions, and models that take them."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from napo.method.layout import PROMPT, Batch
from napo.models.load import has_axes, unwrap


def position_ids(batch: Batch, model: nn.Module) -> Tensor:
    """Positions of a batch's tokens as the model takes them.

    Args:
        batch: from `collate`.
        model: the unwrapped model.

    Returns:
        Shape (sequences, length); for a model with axes and a batch with images (3, sequences,
        length). An image then takes fewer positions than tokens, and responses go on from there.
    """
    if not (has_axes(model) and batch.pixels):
        return batch.positions
    prompt = batch.segments == PROMPT
    visual = (batch.input_ids == model.config.image_token_id) & prompt
    axes, shift = model.model.get_rope_index(
        batch.input_ids,
        visual.int(),
        image_grid_thw=batch.pixels["image_grid_thw"],
        attention_mask=prompt.long(),
    )
    return torch.where(prompt, axes, batch.positions + shift.view(-1, 1))


def attention_mask(segments: Tensor, model: nn.Module) -> Any:
    """The shared-prefix mask in the form that the model's attention takes.

    A token sees what comes before it in its own response and in the prompt. Padding counts as one
    more response, so that no token is without anything to attend to.

    Args:
        segments: shape (sequences, length).
        model: the unwrapped model.

    Returns:
        For sdpa a boolean, for eager an additive float mask of shape (sequences, 1, length,
        length); for flex_attention a `BlockMask`. (A boolean mask under eager is silently wrong.)
    """
    attention = model.config.get_text_config()._attn_implementation
    if attention == "flex_attention":
        return _block_mask(segments)
    length = segments.shape[1]
    places = torch.arange(length, device=segments.device)
    keys, queries = segments[:, None, :], segments[:, :, None]
    visible = ((keys == queries) | (keys == PROMPT)) & (places[None, :] <= places[:, None])
    visible = visible[:, None]
    if attention == "sdpa":
        return visible
    dtype = next(model.parameters()).dtype
    hidden = torch.zeros(visible.shape, dtype=dtype, device=segments.device)
    return hidden.masked_fill(~visible, torch.finfo(dtype).min)


def choose_layout(model: nn.Module, *, warn: bool = True) -> str:
    """ "shared" where the model takes a 4-D mask and positions, else "padded", said in the log."""
    config = unwrap(model).config
    text = config.get_text_config()
    several = "mrope_section" in (getattr(text, "rope_parameters", None) or {})
    reason = ""
    if getattr(config, "is_encoder_decoder", False):
        reason = "it is an encoder-decoder"
    elif text._attn_implementation not in ("sdpa", "eager", "flex_attention"):
        reason = f"{text._attn_implementation} takes no mask of four dimensions"
    elif several and not has_axes(unwrap(model)):
        reason = "its positions have several axes"
    elif any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or ()):
        reason = "not all of its layers attend to everything before them"
    if reason and warn:
        logging.getLogger("napo").warning(
            "%s: responses are scored as padded rows, without the shared prefix (%s).",
            type(unwrap(model)).__name__,
            reason,
        )
    return "padded" if reason else "shared"


def _block_mask(segments: Tensor) -> Any:
    """The shared-prefix mask for flex_attention."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = segments[batch, key] == segments[batch, query]
        return (same | (segments[batch, key] == PROMPT)) & (key <= query)

    rows, length = segments.shape
    return create_block_mask(visible, rows, None, length, length, device=segments.device)

"""Attention mask and positions of the shared prefix, and the models that accept them."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from napo.method.layout import PROMPT, Batch
from napo.models.load import has_axes, unwrap


def position_ids(batch: Batch, model: nn.Module) -> Tensor:
    """Positions of a batch's tokens in the form that the unwrapped model takes.

    Returns:
        Shape (sequences, length). For images and a model whose positions have axes: (3, sequences,
        length); an image then takes fewer positions than tokens, and responses continue from there.
    """
    if not (has_axes(model) and batch.pixels):
        return batch.positions
    prompt = batch.segments == PROMPT  # one a sequence, as rows are not packed for such a model
    visual = (batch.input_ids == model.config.image_token_id) & prompt
    axes, shift = model.model.get_rope_index(
        batch.input_ids,
        visual.int(),
        image_grid_thw=batch.pixels["image_grid_thw"],
        attention_mask=prompt.long(),
    )
    return torch.where(prompt, axes, batch.positions + shift.view(-1, 1))


def attention_mask(batch: Batch, model: nn.Module) -> Any:
    """The shared-prefix mask in the form that the model's attention takes.

    A token attends to earlier tokens of its own segment and of its row's prompt. Padding counts as
    one more segment: a token without anything to attend to would give NaN.

    Args:
        batch: its `segments` and `prompts` say what a token sees.
        model: the unwrapped model.

    Returns:
        For sdpa a boolean, for eager an additive float mask of shape (sequences, 1, length,
        length); for flex_attention a `BlockMask`. (Under eager, a boolean mask is silently wrong.)
    """
    attention = model.config.get_text_config()._attn_implementation
    segments, prompts = batch.segments, batch.prompts
    sequences, length = segments.shape
    if attention == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            segment = segments[row, key]
            same = (segment == segments[row, query]) | (segment == prompts[row, query])
            return same & (key <= query)

        return create_block_mask(allowed, sequences, None, length, length, device=segments.device)
    places = torch.arange(length, device=segments.device)
    keys = segments[:, None, :]
    same = (keys == segments[:, :, None]) | (keys == prompts[:, :, None])
    visible = same & (places[None, :] <= places[:, None])
    visible = visible[:, None]
    if attention == "sdpa":
        return visible
    dtype = next(model.parameters()).dtype
    hidden = torch.zeros(visible.shape, dtype=dtype, device=segments.device)
    return hidden.masked_fill(~visible, torch.finfo(dtype).min)


def choose_layout(model: nn.Module) -> str:
    """ "packed" if the model takes a 4-D mask and positions, else "padded" and a warning.

    "shared" if it computes positions itself, for one prompt a sequence.
    """
    config = unwrap(model).config
    text = config.get_text_config()
    axes = "mrope_section" in (getattr(text, "rope_parameters", None) or {})
    reason = ""
    if getattr(config, "is_encoder_decoder", False):
        reason = "it is an encoder-decoder"
    elif text._attn_implementation not in ("sdpa", "eager", "flex_attention"):
        reason = f"{text._attn_implementation} takes no mask of four dimensions"
    elif axes and not has_axes(unwrap(model)):
        reason = "its positions have several axes"
    elif any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or ()):
        reason = "some of its layers do not attend to all earlier tokens"
    if reason:
        logging.getLogger("napo").warning(
            "%s: responses are scored as padded rows, without the shared prefix (%s).",
            type(unwrap(model)).__name__,
            reason,
        )
    if reason:
        return "padded"
    return "shared" if has_axes(unwrap(model)) else "packed"

"""Visual contrastive decoding (VCD, Leng et al. 2024, CVPR, arXiv 2311.16922).

Each token is chosen from the logits given the picture and those given a noised picture (Eq. 3),
among the tokens that are plausible given the picture (Eqs. 4 and 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor

from napo.config.contrast import STEPS
from napo.models.load import has_axes
from napo.models.prompts import PromptInputs, generator

if TYPE_CHECKING:
    from torch import nn

    from napo.config.contrast import Contrast

PIXELS = "pixel_values"  # what every family's image processor calls the image
RATES = (1e-5, 5e-3)  # noise of the first and the last step (released code)


@cache
def signal(step: int) -> float:
    """The share of the image's variance that is left after steps 0 to `step` of the diffusion.

    The rates are those of the released code, a sigmoid between `RATES`.
    """
    position = np.linspace(-6, 6, STEPS)
    rates = RATES[0] + (RATES[1] - RATES[0]) / (1 + np.exp(-position))
    return float(np.prod(1 - rates[: step + 1]))


def noised(pixels: Mapping[str, Any], step: int, seed: int) -> dict[str, Any]:
    """Preprocessed pixels of an image with the noise of this step; other values stay.

    The noise depends on the image and the seed, so it is the same in every batch and for all
    prompts of the image.
    """
    image = pixels[PIXELS]
    numbers = generator("contrast", f"{seed} ".encode() + image.numpy().tobytes())
    noise = torch.from_numpy(numbers.standard_normal(tuple(image.shape), dtype=np.float32))
    kept = signal(step)
    return {**pixels, PIXELS: math.sqrt(kept) * image + math.sqrt(1 - kept) * noise}


def noised_inputs(
    inputs: Mapping[int, PromptInputs], contrast: Contrast, seed: int
) -> dict[int, PromptInputs]:
    """The prompts with noised images, by index; prompts that share pixels share noised ones."""
    images = {id(prompt.pixels): prompt.pixels for prompt in inputs.values() if prompt.pixels}
    made = {key: noised(pixels, contrast.noise_step, seed) for key, pixels in images.items()}
    return {
        index: replace(prompt, pixels=made.get(id(prompt.pixels), {}))
        for index, prompt in inputs.items()
    }


def contrasted(logits: Tensor, of_noised: Tensor, contrast: Contrast) -> Tensor:
    """The contrasted logits in float32; minus infinity for implausible tokens (Eqs. 3 to 5).

    Args:
        logits: given the picture, shape (batch, vocabulary); minus infinity for tokens that no
            answer contains.
        of_noised: given the noised picture, finite, of the same shape.
        contrast: alpha and beta.
    """
    logits, of_noised = logits.float(), of_noised.float()
    # p >= beta max p, as a difference of logits: the softmax's denominator cancels.
    least = math.log(contrast.beta) if contrast.beta else -math.inf
    implausible = logits < logits.max(-1, keepdim=True).values + least
    difference = (1 + contrast.alpha) * logits - contrast.alpha * of_noised
    return difference.masked_fill(implausible, -math.inf)


class NoisedReader:
    """The last token's logits given noised images; keys and values are kept between the steps.

    Args:
        model: the model, wrapped or not.
        inner: the model without wrappers.
        inputs: of the prompts, as for `model.generate`, with the noised pixels.
    """

    def __init__(self, model: nn.Module, inner: nn.Module, inputs: Mapping[str, Tensor]) -> None:
        self.model, self.inner, self.inputs = model, inner, inputs
        self.cache = DynamicCache(config=inner.config.get_text_config())

    def __call__(self, ids: Tensor) -> Tensor:
        """Logits after token ids, shape (batch, length) -> (batch, vocabulary).

        Each call has one token more than the last one; the first call has the prompts.
        """
        mask, axes = self.inputs["attention_mask"], has_axes(self.inner)
        new = ids.shape[1] - mask.shape[1]
        mask = torch.cat([mask, mask.new_ones(len(mask), new)], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids[:, -1:], "position_ids": positions[:, -1:]}
        if new and axes:  # behind an image, positions count less than its tokens
            inputs["position_ids"] = (positions[:, -1:] + self.inner.model.rope_deltas).expand(
                3, -1, -1
            )
        elif not new:
            inputs = {**self.inputs} | ({} if axes else {"position_ids": positions})
        inputs |= {"attention_mask": mask, "past_key_values": self.cache}
        return self.model(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1]


class ContrastProcessor(LogitsProcessor):
    """The contrast within `model.generate`, for families that cannot share image features.

    Args:
        read: gives the last token's logits after token ids, given the noised pictures; shape
            (batch, length) -> (batch, vocabulary).
        seeing: which prompts have an image, shape (batch,); the others stay as they are.
        contrast: alpha and beta.
    """

    def __init__(
        self, read: Callable[[Tensor], Tensor], seeing: Tensor, contrast: Contrast
    ) -> None:
        self.read, self.seeing, self.contrast = read, seeing, contrast

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The contrasted logits of a step."""
        changed = contrasted(scores, self.read(input_ids), self.contrast)
        return torch.where(self.seeing[:, None], changed, scores)

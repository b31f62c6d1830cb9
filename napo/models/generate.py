"""Batched generation: left-padded, sorted by length, an image computed once for its prompts.

Greedy answers in float32 do not depend on the batch size. A sampled answer depends only on the seed
and on the prompt's key (or its index). The noise of a contrast depends on the seed and the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.models.decoder import Decoder
from napo.models.halving import Halving
from napo.models.prompts import (
    PromptInputs,
    image_pixels,
    mask_image,
    prompt_inputs,
)
from napo.workspace.pictures import BadPicture, open_rgb

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn
    from transformers import ProcessorMixin

    from napo.config.profile import Decoding, Masks


@dataclass(frozen=True)
class Prompt:
    """A question, with or without an image, and the masks on them."""

    text: str
    image: Image.Image | None = None
    image_mask: str | None = None  # one of napo.config.settings.IMAGE_MASKS
    text_mask: str | None = None  # one of napo.config.settings.TEXT_MASKS
    key: str = ""  # seeds its random numbers, such as a row's id; empty: its index does

    def entropy(self, index: int) -> int:
        """A 64-bit number from the key, or else the prompt's index."""
        if not self.key:
            return index
        return int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8])

    def inputs(
        self, processor: ProcessorMixin, pixels: dict[str, Any] | None = None
    ) -> PromptInputs:
        """Token ids and pixels, see `napo.models.prompts.prompt_inputs`."""
        masks = {"image_mask": self.image_mask, "text_mask": self.text_mask}
        return prompt_inputs(processor, self.text, self.image, pixels=pixels, **masks)


def biased_prompts(rows: Iterable[Mapping[str, Any]], masks: Masks) -> dict[str, list[Prompt]]:
    """The prompts of the biased responses of rows: image masked (Eq. 7), question masked (Eq. 8).

    Args:
        rows: rows with `id`, `question` and `image`.
        masks: how a modality is hidden.

    Returns:
        Response -> a prompt for each row.
    """
    rows = list(rows)
    hidden = ({"image_mask": masks.image}, {"text_mask": masks.text})
    return {
        name: [
            Prompt(row["question"], row["image"], **mask, key=f"{row['id']} {name}") for row in rows
        ]
        for name, mask in zip(BIASED, hidden, strict=True)
    }


@dataclass(frozen=True)
class Generated:
    """An answer."""

    text: str  # without special tokens and outer white space
    tokens: int  # generated, without the end token
    cut: bool  # by the length limit, so that it has no end token


def generate(
    model: nn.Module,
    processor: ProcessorMixin,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    batch_size: int = 64,
    seed: int = 0,
    progress: Any = None,
) -> list[Generated]:
    """Answer prompts, in their order.

    Args:
        model: a Hugging Face model of images and text, wrapped or not; set to evaluation mode.
        processor: its processor.
        prompts: with and without images, mixed at will.
        decoding: beams with sampling draw per batch, so their answers depend on the batch size.
        batch_size: prompts in a batch; halved, with a warning, when memory runs out.
        seed: for sampling, and for the noise of a contrast.
        progress: a `napo.progress.Progress` to advance by each prompt.

    Raises:
        NapoError: as `prompt_inputs`, or when a single prompt does not fit into memory.
    """
    if not prompts:
        return []
    model.eval()
    seeds = [(seed, prompt.entropy(index)) for index, prompt in enumerate(prompts)]
    decoder = Decoder(model, processor, decoding, seeds, seed)
    halving = Halving("prompts", "lower max_new_tokens, or use a larger GPU or a smaller dtype")
    ids: dict[int, list[int]] = {}
    with torch.inference_mode():
        for inputs in _windows(processor, prompts, decoder.images_at_a_time):
            features, noised = decoder.image_features(inputs), decoder.noised(inputs)
            answer = partial(decoder, inputs, features, noised=noised)
            lengths = {index: len(prompt.ids) for index, prompt in inputs.items()}
            first = {id(p.pixels): index for index, p in reversed(inputs.items()) if p.pixels}
            images = {index: first.get(id(p.pixels), index) for index, p in inputs.items()}
            on_cpu = decoder.device.type == "cpu"
            for batch in batches(lengths, images, batch_size, equal=on_cpu):
                for part, answers in halving(answer, batch):
                    ids |= answers
                    if progress is not None:
                        progress.advance(len(part))
    in_order = [ids[index] for index in range(len(prompts))]
    texts = processor.tokenizer.batch_decode(in_order, skip_special_tokens=True)
    ended = [tokens[-1] in decoder.ends for tokens in in_order]
    return [
        Generated(text.strip(), len(tokens) - end, not end)
        for text, tokens, end in zip(texts, in_order, ended, strict=True)
    ]


def _windows(
    processor: ProcessorMixin, prompts: Sequence[Prompt], images: int
) -> Iterator[dict[int, PromptInputs]]:
    """Inputs of consecutive prompts, by index, with at most `images` distinct image objects.

    Equal images are processed once and share one `pixels` object.
    """
    inputs: dict[int, PromptInputs] = {}
    pixels: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    for index, prompt in enumerate(prompts):
        if prompt.image is not None and id(prompt.image) not in seen:
            if len(seen) == images:
                yield inputs
                inputs, pixels, seen = {}, {}, set()
            seen.add(id(prompt.image))
        key = ""
        if prompt.image is not None and prompt.image_mask != "drop":
            try:
                image = mask_image(open_rgb(prompt.image), prompt.image_mask)
            except BadPicture as error:
                raise NapoError(
                    f"The image of {prompt.text[:60]!r} cannot be used: {error}."
                ) from None
            key = f"{image.size}{hashlib.sha256(image.tobytes()).hexdigest()}"
            if key not in pixels:
                pixels[key] = image_pixels(processor, image)
        inputs[index] = prompt.inputs(processor, pixels.get(key))
    yield inputs


def batches(
    lengths: Mapping[int, int], images: Mapping[int, int], size: int, *, equal: bool
) -> Iterator[list[int]]:
    """Indices of prompts of similar length, so that a batch has little padding.

    Args:
        lengths: numbers of tokens of the prompts, by index.
        images: a number for each prompt's image. Prompts of one image come one after another, so
            that a batch reads it once.
        size: prompts in a batch, at most.
        equal: no padding at all; batches are then not full: 25 % faster on a CPU, while a GPU wants
            full batches.
    """
    longest: dict[int, int] = {}
    for index, image in images.items():
        longest[image] = max(lengths[index], longest.get(image, 0))

    def place(index: int) -> tuple[int, int, int]:
        image, length = images[index], lengths[index]
        return (length, image, 0) if equal else (longest[image], image, length)

    batch: list[int] = []
    for index in sorted(lengths, key=place):
        if len(batch) == size or (equal and batch and lengths[index] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

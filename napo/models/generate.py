"""Batched generation: left-padded, sorted by length, one pass of the vision tower per image.

Greedy answers in float32 do not depend on the batch size. A sampled answer depends only on the seed
and on the prompt's key (or its index).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, DynamicCache

from napo.errors import NapoError
from napo.models import families
from napo.models.decoding import decoding_record, neutral_config
from napo.models.halving import Halving
from napo.models.image_tokens import count_features, features_checked, require_equal
from napo.models.load import has_axes, unwrap
from napo.models.prompts import (
    PromptInputs,
    image_pixels,
    mask_image,
    prompt_inputs,
    stack_pixels,
)
from napo.workspace.pictures import BadPicture, open_rgb

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn
    from transformers import ProcessorMixin

    from napo.config.profile import Decoding

FEATURE_BYTES = 2**28  # of image features held at a time
IMAGE_BATCH = 64


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
        seed: for sampling.
        progress: a `napo.progress.Progress` to advance by each prompt.

    Raises:
        NapoError: as `prompt_inputs`, or when a single prompt does not fit into memory.
    """
    if not prompts:
        return []
    model.eval()
    seeds = [(seed, prompt.entropy(index)) for index, prompt in enumerate(prompts)]
    decoder = Decoder(model, processor, decoding, seeds)
    halving = Halving("prompts", "lower max_new_tokens, or use a larger GPU or a smaller dtype")
    ids: dict[int, list[int]] = {}
    with torch.inference_mode():
        for inputs in _windows(processor, prompts, decoder.images_at_a_time):
            answer = partial(decoder, inputs, decoder.image_features(inputs))
            lengths = {index: len(prompt.ids) for index, prompt in inputs.items()}
            for batch in batches(lengths, batch_size, equal=decoder.device.type == "cpu"):
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


def batches(lengths: Mapping[int, int], size: int, *, equal: bool) -> Iterator[list[int]]:
    """Indices of prompts of similar length, so that a batch has little padding.

    With `equal` there is no padding at all, and batches are not full: 25 % faster on a CPU, while a
    GPU wants full batches.
    """
    batch: list[int] = []
    for index in sorted(lengths, key=lengths.__getitem__):
        if len(batch) == size or (equal and batch and lengths[index] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Decoder:
    """A model with its decoding settings; answers one batch of prompts per call.

    `seeds` holds the seed and the entropy of each prompt, by its index.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: ProcessorMixin,
        decoding: Decoding,
        seeds: Sequence[tuple[int, int]],
    ) -> None:
        self.model, self.decoding, self.seeds = model, decoding, seeds
        self.inner = unwrap(model)
        self.device = next(model.parameters()).device
        self.visual = processor.image_token_id
        record = decoding_record(self.inner.generation_config, processor, decoding)
        self.ends, self.pad = record["eos_token_id"], record["pad_token_id"]
        self.never = record["suppress_tokens"]
        self.settings = neutral_config(record)
        self.shares = families.of_config(self.inner.config).shares_features
        self.images_at_a_time = IMAGE_BATCH
        if self.shares:
            config = self.inner.config
            width = config.get_text_config().hidden_size * self.inner.dtype.itemsize
            tokens = getattr(config, "image_seq_length", 576)
            self.images_at_a_time = max(IMAGE_BATCH, FEATURE_BYTES // (tokens * width))

    def image_features(self, inputs: Mapping[int, PromptInputs]) -> dict[int, Tensor]:
        """Image features of each prompt, by index; empty if the family cannot share them."""
        if not self.shares:
            return {}
        pixels = {id(prompt.pixels): prompt.pixels for prompt in inputs.values() if prompt.pixels}
        keys, features = list(pixels), {}
        for start in range(0, len(keys), IMAGE_BATCH):
            chunk = keys[start : start + IMAGE_BATCH]
            stacked = self._on_device([pixels[key] for key in chunk])
            outputs = self.inner.get_image_features(**stacked).pooler_output
            features |= dict(zip(chunk, outputs, strict=True))
        images = {index: features[id(p.pixels)] for index, p in inputs.items() if p.pixels}
        tokens = [inputs[index].ids.count(self.visual) for index in images]
        require_equal(self.inner, tokens, count_features(images.values()))
        return images

    def __call__(
        self,
        inputs: Mapping[int, PromptInputs],
        features: Mapping[int, Tensor],
        indices: Sequence[int],
    ) -> dict[int, list[int]]:
        """Token ids of the answers to a batch, end token included, by the prompts' indices."""
        rows = [inputs[index].ids for index in indices]
        length = max(map(len, rows))
        ids = torch.tensor([[self.pad] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        ids, mask = ids.to(self.device), mask.to(self.device)
        if self.shares:
            embeddings = self.inner.get_input_embeddings()(ids)
            images = [features[index] for index in indices if index in features]
            if images:
                visual = (ids == self.visual) & mask.bool()
                merged = torch.cat(images).to(embeddings.dtype)
                embeddings = embeddings.masked_scatter(visual[..., None], merged)
            if self.decoding.num_beams == 1:
                return self.decode(embeddings, mask, indices)
            model_inputs = {"inputs_embeds": embeddings, "attention_mask": mask}
        else:
            model_inputs = {"input_ids": ids, "attention_mask": mask}
            model_inputs |= self._on_device([inputs[index].pixels for index in indices])
            if has_axes(self.inner):  # it computes its positions from these only
                model_inputs["mm_token_type_ids"] = (ids == self.visual).int()
        return self.search(model_inputs, indices)

    def decode(
        self, embeddings: Tensor, mask: Tensor, indices: Sequence[int]
    ) -> dict[int, list[int]]:
        """Greedy or sampled answers; a row leaves the batch when it ends.

        Shapes: embeddings (batch, length, width), with the image features; mask (batch, length), 0
        for padding; indices of the prompts (batch,).
        """
        decoding, alive, answers = self.decoding, list(indices), {n: [] for n in indices}
        cache = DynamicCache(config=self.inner.config.get_text_config())
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        padded = not bool(mask.all())  # without padding the kernels need no mask
        step_inputs: dict[str, Tensor] = {"inputs_embeds": embeddings}
        draws = None  # one random number for each row and step
        if decoding.temperature > 0:
            generators = [np.random.default_rng(self.seeds[index]) for index in indices]
            numbers = np.stack([each.random(decoding.max_new_tokens) for each in generators])
            draws = torch.tensor(numbers, dtype=torch.float32, device=self.device)
        for step in range(decoding.max_new_tokens):
            logits = self.model(
                **step_inputs,
                attention_mask=mask if padded else None,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            logits[:, self.never] = -torch.inf
            if step < decoding.min_new_tokens:
                logits[:, self.ends] = -torch.inf
            chosen = logits.argmax(-1) if draws is None else self.sample(logits, draws[:, step])
            tokens = chosen.tolist()
            for index, token in zip(alive, tokens, strict=True):
                answers[index].append(token)
            going = [row for row, token in enumerate(tokens) if token not in self.ends]
            if not going:
                break
            if len(going) < len(alive):
                kept = torch.tensor(going, device=self.device)
                cache.batch_select_indices(kept)
                chosen, mask, positions = chosen[kept], mask[kept], positions[kept]
                alive = [alive[row] for row in going]
                draws = None if draws is None else draws[kept]
            step_inputs = {"input_ids": chosen[:, None]}
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return answers

    def sample(self, logits: Tensor, draws: Tensor) -> Tensor:
        """The token at each row's random number in its cumulative distribution, cut at `top_p`."""
        scaled = logits.float() / self.decoding.temperature
        chances, tokens = scaled.softmax(-1).sort(descending=True, stable=True)
        below = chances.cumsum(-1) - chances
        chances = chances.masked_fill(below >= self.decoding.top_p, 0.0)
        total = chances.cumsum(-1)
        picked = torch.searchsorted(total, draws[:, None] * total[:, -1:], right=True)
        last = (chances > 0).sum(-1, keepdim=True) - 1
        return tokens.gather(-1, picked.minimum(last)).squeeze(-1)

    def search(self, inputs: dict[str, Tensor], indices: Sequence[int]) -> dict[int, list[int]]:
        """Answers by `model.generate`: beams, and families that cannot share image features."""
        seeds = [number for index in indices for number in self.seeds[index]]
        original = self.inner.generation_config
        # What a call leaves open, generate() takes from here, where a checkpoint has its defaults.
        self.inner.generation_config = self.settings
        try:
            beams = self.decoding.num_beams
            with torch.random.fork_rng(), features_checked(self.inner, inputs, beams):
                torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
                output = self.model.generate(**inputs)
        finally:
            self.inner.generation_config = original
        if "input_ids" in inputs:
            output = output[:, inputs["input_ids"].shape[1] :]
        answers = {}
        for index, ids in zip(indices, output.tolist(), strict=True):
            lengths = (n for n, token in enumerate(ids, start=1) if token in self.ends)
            answers[index] = ids[: next(lengths, len(ids))]  # up to the first end token
        return answers

    def _on_device(self, pixels: Sequence[dict[str, Any]]) -> BatchFeature:
        return BatchFeature(stack_pixels(pixels)).to(self.device, self.inner.dtype)

"""Batched generation: left-padded, sorted by length, one pass of the vision tower per image.

Greedy answers in float32 do not depend on the batch size, and a sampled answer depends on the seed
and the prompt's key (or place in the list) only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napo.models import families
from napo.models.halving import Halving
from napo.models.load import has_axes, unwrap
from napo.models.prompts import (
    PromptInputs,
    image_pixels,
    mask_image,
    pad_id,
    prompt_inputs,
    stack_pixels,
)

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn
    from transformers import ProcessorMixin

    from napo.config.profile import Decoding

FEATURE_BYTES = 2**28  # image features held at a time
IMAGE_BATCH = 64


@dataclass(frozen=True)
class Prompt:
    """A question, with or without an image, and what is hidden of it.

    Attributes:
        text: the user's text.
        image: the image.
        image_mask: one of `napo.models.prompts.IMAGE_MASKS`, or None.
        text_mask: one of `napo.models.prompts.TEXT_MASKS`, or None.
        key: what its random numbers are drawn for, where decoding samples: with a row's id they
            are the same whatever is asked beside it; empty: its place among the prompts.
    """

    text: str
    image: Image.Image | None = None
    image_mask: str | None = None
    text_mask: str | None = None
    key: str = ""

    def entropy(self, place: int) -> int:
        """A number of 64 bits for its key, or its place among the prompts."""
        if not self.key:
            return place
        return int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8])


@dataclass(frozen=True)
class Generated:
    """An answer.

    Attributes:
        text: the decoded answer, without special tokens and white space around it.
        tokens: how many tokens were generated, the end token not counted.
        cut: whether the length limit stopped it, so that it has no end token.
    """

    text: str
    tokens: int
    cut: bool


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
        prompts: rows with and without an image may be mixed.
        decoding: `max_new_tokens`, `min_new_tokens`, `num_beams`, `temperature` (0: greedy),
            `top_p`. Sampling inside beams draws per batch, so there the batch size matters.
        batch_size: prompts answered at a time; fewer, with a warning, once memory runs out.
        seed: for sampling.
        progress: a `napo.progress.Progress` to advance by each prompt.

    Raises:
        NapoError: for an unknown mask, one that this tokenizer cannot make, or a prompt that alone
            does not fit into memory.
    """
    if not prompts:
        return []
    model.eval()
    drawn_for = [prompt.entropy(at) for at, prompt in enumerate(prompts)]
    answer = _Answerer(model, processor, decoding, [(seed, number) for number in drawn_for])
    halving = Halving("prompts", "lower max_new_tokens, or use a larger GPU or a smaller dtype")
    found: dict[int, list[int]] = {}
    with torch.inference_mode():
        for window in _windows(prompts, answer.images_at_a_time):
            inputs = _encode(processor, prompts, window)
            features = answer.image_features(inputs)
            lengths = {at: len(inputs[at][0].ids) for at in window}
            batches = _batches(lengths, batch_size, equal=answer.device.type == "cpu")
            found |= _answered(answer, inputs, features, batches, halving, progress)
    limit, tokenizer = decoding.max_new_tokens, processor.tokenizer
    texts = tokenizer.batch_decode(
        [found[at] for at in range(len(prompts))], skip_special_tokens=True
    )
    return [
        Generated(text.strip(), len(ids) - (ended := ids[-1] in answer.ends), not ended)
        if (ids := found[at][:limit])
        else Generated("", 0, False)
        for at, text in enumerate(texts)
    ]


def _answered(
    answer: _Answerer,
    inputs: dict[int, tuple[PromptInputs, str]],
    features: dict[str, Tensor],
    batches: Iterable[list[int]],
    halving: Halving,
    progress: Any,
) -> dict[int, list[int]]:
    """Token ids of the answers to batches of places."""

    def work(part: list[int]) -> dict[int, list[int]]:
        return answer([inputs[at] for at in part], part, features)

    found: dict[int, list[int]] = {}
    for batch in batches:
        for part, ids in halving(work, batch):
            found |= ids
            if progress is not None:
                progress.advance(len(part))
    return found


class _Answerer:
    """A model and its decoding settings, ready to answer batches of prompts."""

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
        tokenizer = processor.tokenizer
        ends = self.inner.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self.ends = sorted({e for e in (*ends, tokenizer.eos_token_id) if e is not None})
        self.visual = processor.image_token_id
        self.pad = pad_id(processor)
        # No answer consists of these, and one that did would decode to nothing.
        never = {self.visual, tokenizer.unk_token_id, tokenizer.bos_token_id, self.pad}
        self.never = sorted(never - {None} - set(self.ends))
        self.shares = families.of_config(self.inner.config).shares_features
        self.typed = has_axes(self.inner)
        self.images_at_a_time = IMAGE_BATCH
        if self.shares:
            config = self.inner.config
            width = config.get_text_config().hidden_size * self.inner.dtype.itemsize
            tokens = getattr(config, "image_seq_length", 576)
            self.images_at_a_time = max(IMAGE_BATCH, FEATURE_BYTES // (tokens * width))

    def image_features(self, inputs: dict[int, tuple[PromptInputs, str]]) -> dict[str, Tensor]:
        """Features of each distinct image of these prompts, by the image's key."""
        if not self.shares:
            return {}
        pixels = {key: prompt.pixels for prompt, key in inputs.values() if prompt.pixels}
        keys, features = list(pixels), {}
        for start in range(0, len(keys), IMAGE_BATCH):
            chunk = keys[start : start + IMAGE_BATCH]
            stacked = self._move(stack_pixels([pixels[key] for key in chunk]))
            outputs = self.inner.get_image_features(**stacked).pooler_output
            features |= dict(zip(chunk, outputs, strict=True))
        return features

    def __call__(
        self,
        inputs: Sequence[tuple[PromptInputs, str]],
        places: Sequence[int],
        features: dict[str, Tensor],
    ) -> dict[int, list[int]]:
        """Token ids of the answers to a batch, by the prompts' places in the whole list."""
        length = max(len(prompt.ids) for prompt, _ in inputs)
        ids = torch.tensor([[self.pad] * (length - len(p.ids)) + p.ids for p, _ in inputs])
        seen = torch.tensor([[0] * (length - len(p.ids)) + [1] * len(p.ids) for p, _ in inputs])
        ids, seen = ids.to(self.device), seen.to(self.device)
        if self.shares:
            embeddings = self.inner.get_input_embeddings()(ids)
            held = [features[key] for prompt, key in inputs if prompt.pixels]
            if held:
                visual = (ids == self.visual) & seen.bool()
                merged = torch.cat(held).to(embeddings.dtype)
                embeddings = embeddings.masked_scatter(visual[..., None], merged)
            if self.decoding.num_beams == 1:
                return self._decode(embeddings, seen, places)
            model_inputs = {"inputs_embeds": embeddings, "attention_mask": seen}
        else:
            stacked = stack_pixels([prompt.pixels for prompt, _ in inputs])
            model_inputs = {"input_ids": ids, "attention_mask": seen, **self._move(stacked)}
            if self.typed:  # from these, and nothing else, it makes its positions
                model_inputs["mm_token_type_ids"] = (ids == self.visual).int()
        return self._library(model_inputs, places)

    def _decode(
        self, embeddings: Tensor, seen: Tensor, places: Sequence[int]
    ) -> dict[int, list[int]]:
        """Greedy or sampled answers; rows that have ended leave the batch."""
        from transformers import DynamicCache

        alive, answers = list(places), {at: [] for at in places}
        cache = DynamicCache(config=self.inner.config.get_text_config())
        positions = (seen.cumsum(-1) - 1).clamp(min=0)
        padded = not bool(seen.all())  # without padding the kernels need no mask
        step_inputs: dict[str, Tensor] = {"inputs_embeds": embeddings}
        draws = self._draws(places)
        for step in range(self.decoding.max_new_tokens):
            logits = self.model(
                **step_inputs,
                attention_mask=seen if padded else None,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = self._choose(logits, step, draws)
            tokens = chosen.tolist()
            for at, token in zip(alive, tokens, strict=True):
                answers[at].append(token)
            going = [n for n, token in enumerate(tokens) if token not in self.ends]
            if not going:
                break
            if len(going) < len(alive):
                kept = torch.tensor(going, device=self.device)
                cache.batch_select_indices(kept)
                chosen, seen, positions = chosen[kept], seen[kept], positions[kept]
                alive = [alive[n] for n in going]
                draws = None if draws is None else draws[kept]
            step_inputs = {"input_ids": chosen[:, None]}
            seen = torch.cat([seen, seen.new_ones(len(alive), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return answers

    def _choose(self, logits: Tensor, step: int, draws: Tensor | None) -> Tensor:
        """The next token of each row: the likeliest, or the one its random number falls on."""
        logits[:, self.never] = -torch.inf
        if step < self.decoding.min_new_tokens:
            logits[:, self.ends] = -torch.inf
        if draws is None:
            return logits.argmax(-1)
        scaled = logits.float() / self.decoding.temperature
        chances, tokens = scaled.softmax(-1).sort(descending=True, stable=True)
        below = chances.cumsum(-1) - chances
        chances = chances.masked_fill(below >= self.decoding.top_p, 0.0)
        total = chances.cumsum(-1)
        target = draws[:, step, None] * total[:, -1:]
        picked = torch.searchsorted(total, target, right=True)
        last = (chances > 0).sum(-1, keepdim=True) - 1
        return tokens.gather(-1, picked.minimum(last)).squeeze(-1)

    def _draws(self, places: Sequence[int]) -> Tensor | None:
        """A random number for each row and step, from the seed and the prompt's key or place."""
        if self.decoding.temperature == 0:
            return None
        steps = self.decoding.max_new_tokens
        numbers = [np.random.default_rng(self.seeds[at]).random(steps) for at in places]
        return torch.tensor(np.stack(numbers), dtype=torch.float32, device=self.device)

    def _library(self, inputs: dict[str, Tensor], places: Sequence[int]) -> dict[int, list[int]]:
        """Answers by `model.generate`: beams, and families with features of their own."""
        decoding, sample = self.decoding, self.decoding.temperature > 0
        settings = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
        drawn_for = [number for at in places for number in self.seeds[at]]
        entropy = np.random.SeedSequence(drawn_for).generate_state(1)
        with torch.random.fork_rng():
            torch.manual_seed(int(entropy[0]))
            output = self.model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                min_new_tokens=decoding.min_new_tokens,
                num_beams=decoding.num_beams,
                do_sample=sample,
                suppress_tokens=self.never or None,
                eos_token_id=self.ends,
                pad_token_id=self.pad,
                **(settings if sample else {}),
            )
        if "input_ids" in inputs:
            output = output[:, inputs["input_ids"].shape[1] :]
        return {at: self._whole(ids) for at, ids in zip(places, output.tolist(), strict=True)}

    def _whole(self, ids: list[int]) -> list[int]:
        """Ids up to the first end token, which is kept."""
        ends = [n for n, token in enumerate(ids) if token in self.ends]
        return ids[: ends[0] + 1] if ends else ids

    def _move(self, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value.to(self.device, self.inner.dtype)
            if value.is_floating_point()
            else value.to(self.device)
            for name, value in pixels.items()
        }


def _windows(prompts: Sequence[Prompt], images: int) -> Iterator[list[int]]:
    """Runs of prompts with at most so many distinct image objects, whose features are kept."""
    window: list[int] = []
    seen: set[int] = set()
    for at, prompt in enumerate(prompts):
        if prompt.image is not None and id(prompt.image) not in seen:
            if len(seen) == images:
                yield window
                window, seen = [], set()
            seen.add(id(prompt.image))
        window.append(at)
    if window:
        yield window


def _batches(lengths: Mapping[int, int], size: int, *, equal: bool) -> Iterator[list[int]]:
    """Prompts of like length together, so that little of a batch is padding.

    Args:
        lengths: tokens of each prompt, by its place.
        size: most prompts of a batch.
        equal: no padding at all, at the price of batches that are not full. A CPU is a quarter
            faster so, while a GPU wants its batches full.
    """
    batch: list[int] = []
    for at in sorted(lengths, key=lengths.__getitem__):
        if len(batch) == size or (equal and batch and lengths[at] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _encode(
    processor: ProcessorMixin, prompts: Sequence[Prompt], window: Sequence[int]
) -> dict[int, tuple[PromptInputs, str]]:
    """Inputs of the prompts of a window and the key of each one's image; like images once."""
    made: dict[str, dict[str, Tensor]] = {}
    keys: dict[tuple[int, str | None], str] = {}
    encoded = {}
    for at in window:
        prompt, key = prompts[at], ""
        if prompt.image is not None and prompt.image_mask != "drop":
            same = (id(prompt.image), prompt.image_mask)
            if same not in keys:
                image = mask_image(prompt.image, prompt.image_mask).convert("RGB")
                digest = hashlib.sha256(image.tobytes()).hexdigest()
                keys[same] = f"{image.size}{digest}"
                if keys[same] not in made:
                    made[keys[same]] = image_pixels(processor, image)
            key = keys[same]
        inputs = prompt_inputs(
            processor,
            prompt.text,
            prompt.image,
            image_mask=prompt.image_mask,
            text_mask=prompt.text_mask,
            pixels=made.get(key),
        )
        encoded[at] = inputs, key
    return encoded

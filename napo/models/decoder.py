"""A model with its decoding settings: answers to one batch of prompts.

With a contrast (`napo.models.contrast`) the model reads each batch twice, with the pictures and
with noised ones, into a cache each; both get the same chosen tokens.

Prompts of one image begin alike. The model reads that beginning, up to the image's last token, once
for all of them in a batch; the rest of each prompt continues from its keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, DynamicCache, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from napo.models import families
from napo.models.contrast import ContrastProcessor, NoisedReader, contrasted, noised_inputs
from napo.models.decoding import decoding_record, neutral_config
from napo.models.image_tokens import count_features, features_checked, require_equal
from napo.models.load import has_axes, unwrap
from napo.models.prompts import PromptInputs, stack_pixels

if TYPE_CHECKING:
    from torch import nn
    from transformers import LogitsProcessor, ProcessorMixin

    from napo.config.profile import Decoding

FEATURE_BYTES = 2**28  # of image features held at a time
IMAGE_BATCH = 64
ROOM = 32  # positions by which keys and values grow


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer with room for `ROOM` tokens more.

    The library's layer copies all of them for each token. The numbers are the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[Tensor] = []  # shape (batch, heads, room for positions, dimensions)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append a step's keys and values, shape (batch, heads, new, dimensions); return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        held = [self.keys, self.values] if start else []
        if not self.buffers or end > self.buffers[0].shape[-2]:
            self.buffers = [
                states.new_empty((*states.shape[:-2], end + ROOM, states.shape[-1]))
                for states in (key_states, value_states)
            ]
            for buffer, states in zip(self.buffers, held, strict=False):
                buffer[..., :start, :] = states
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences, in this order; one may be kept several times."""
        length = self.get_seq_length()
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self.keys, self.values = (buffer[..., :length, :] for buffer in self.buffers)


class Noised(NamedTuple):
    """Prompts with noised images, and the features of these images, by the prompts' indices."""

    inputs: Mapping[int, PromptInputs]
    features: Mapping[int, Tensor]  # empty if the family cannot share them


class Decoder:
    """A model with its decoding settings; answers one batch of prompts per call.

    `seeds` holds the seed and the entropy of each prompt, by its index. `seed` is for the noise of
    a contrast.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: ProcessorMixin,
        decoding: Decoding,
        seeds: Sequence[tuple[int, int]],
        seed: int = 0,
    ) -> None:
        self.model, self.decoding, self.seeds, self.seed = model, decoding, seeds, seed
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

    def noised(self, inputs: Mapping[int, PromptInputs]) -> Noised | None:
        """The same prompts with noised images; None without a contrast, or without an image."""
        contrast = self.decoding.contrast
        if contrast is None or not any(prompt.pixels for prompt in inputs.values()):
            return None
        noised = noised_inputs(inputs, contrast, self.seed)
        return Noised(noised, self.image_features(noised))

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
        noised: Noised | None = None,
    ) -> dict[int, list[int]]:
        """Token ids of the answers to a batch, end token included, by the prompts' indices.

        `inputs`, their `features` and the `noised` prompts may be those of more than the batch.
        """
        if not any(inputs[index].pixels for index in indices):
            noised = None
        if self.shares and self.decoding.num_beams == 1:
            return self.decode(inputs, features, indices, noised)
        ids, mask = self.padded([inputs[index].ids for index in indices])
        if self.shares:
            images = [features[index] for index in indices if index in features]
            model_inputs = {"inputs_embeds": self.embeddings(ids, mask, images)}
        else:
            model_inputs = {"input_ids": ids}
            model_inputs |= self._on_device([inputs[index].pixels for index in indices])
            if has_axes(self.inner):  # it computes its positions from these only
                model_inputs["mm_token_type_ids"] = (ids == self.visual).int()
        model_inputs["attention_mask"] = mask
        processors = []
        if noised:
            pixels = self._on_device([noised.inputs[index].pixels for index in indices])
            reader = NoisedReader(self.model, self.inner, {**model_inputs, **pixels})
            seeing = self.seeing(inputs, indices)
            processors.append(ContrastProcessor(reader, seeing, self.decoding.contrast))
        return self.search(model_inputs, indices, processors)

    def seeing(self, inputs: Mapping[int, PromptInputs], indices: Sequence[int]) -> Tensor:
        """Which prompts of a batch have an image, shape (batch,)."""
        return torch.tensor([bool(inputs[index].pixels) for index in indices], device=self.device)

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids padded on the left, and 0 for padding, both of shape (rows, longest row)."""
        length = max(map(len, rows))
        ids = torch.tensor([[self.pad] * (length - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self.device), mask.to(self.device)

    def embeddings(self, ids: Tensor, mask: Tensor, images: Sequence[Tensor]) -> Tensor:
        """Embeddings of token ids, shape (rows, length, width), with the features of images."""
        embeddings = self.inner.get_input_embeddings()(ids)
        if not images:
            return embeddings
        visual = (ids == self.visual) & mask.bool()
        merged = torch.cat(list(images)).to(embeddings.dtype)
        return embeddings.masked_scatter(visual[..., None], merged)

    def read(self, embeddings: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Read tokens behind those in the cache.

        Args:
            embeddings: shape (rows, new tokens, width).
            mask: 0 for padding, also of the tokens in the cache, shape (rows, all tokens).
            cache: keys and values; the new ones are added.

        Returns:
            The last token's logits, shape (rows, vocabulary).
        """
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -embeddings.shape[1] :]
        outputs = self.model(
            inputs_embeds=embeddings,
            attention_mask=None if bool(mask.all()) else mask,  # without padding kernels need none
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return outputs.logits[:, -1]

    def read_prompts(
        self,
        inputs: Mapping[int, PromptInputs],
        features: Mapping[int, Tensor],
        indices: Sequence[int],
    ) -> tuple[Tensor, Tensor, DynamicCache]:
        """Read the prompts of a batch; if several have one image, its tokens only once.

        Returns:
            The last token's logits as in `read`, the mask, and the filled cache.
        """
        cache = DynamicCache(config=self.inner.config.get_text_config())
        cache.layers = [
            RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
        ]
        rows = [inputs[index].ids for index in indices]
        heads: dict[tuple[int, tuple[int, ...]], int] = {}  # image, beginning -> an index
        owners = []  # the key in `heads` of each prompt
        for index, row in zip(indices, rows, strict=True):
            end = len(row) - row[::-1].index(self.visual) if index in features else 0
            owners.append((id(inputs[index].pixels), tuple(row[:end])))
            heads.setdefault(owners[-1], index)
        # Nothing is shared, or a prompt without an image has no beginning to read first.
        if len(heads) == len(rows) or any(index not in features for index in indices):
            ids, mask = self.padded(rows)
            images = [features[index] for index in indices if index in features]
            return self.read(self.embeddings(ids, mask, images), mask, cache), mask, cache
        ids, mask = self.padded([tokens for _, tokens in heads])
        images = [features[index] for index in heads.values()]
        self.read(self.embeddings(ids, mask, images), mask, cache)
        place = {owner: number for number, owner in enumerate(heads)}
        chosen = torch.tensor([place[owner] for owner in owners], device=self.device)
        cache.batch_select_indices(chosen)
        ids, rest = self.padded([row[len(o[1]) :] for row, o in zip(rows, owners, strict=True)])
        mask = torch.cat([mask[chosen], rest], dim=1)
        return self.read(self.embeddings(ids, rest, []), mask, cache), mask, cache

    def decode(
        self,
        inputs: Mapping[int, PromptInputs],
        features: Mapping[int, Tensor],
        indices: Sequence[int],
        noised: Noised | None = None,
    ) -> dict[int, list[int]]:
        """Greedy or sampled answers; a row leaves the batch when it ends."""
        decoding, alive, answers = self.decoding, list(indices), {n: [] for n in indices}
        draws = None  # one random number for each row and step
        if decoding.temperature > 0:
            generators = [np.random.default_rng(self.seeds[index]) for index in indices]
            numbers = np.stack([each.random(decoding.max_new_tokens) for each in generators])
            draws = torch.tensor(numbers, dtype=torch.float32, device=self.device)
        logits, mask, cache = self.read_prompts(inputs, features, indices)
        if noised:
            seeing = self.seeing(inputs, indices)
            of_noised, _, noised_cache = self.read_prompts(inputs, noised.features, indices)
        for step in range(decoding.max_new_tokens):
            logits[:, self.never] = -torch.inf
            if step < decoding.min_new_tokens:
                logits[:, self.ends] = -torch.inf
            if noised:
                changed = contrasted(logits, of_noised, decoding.contrast)
                logits = torch.where(seeing[:, None], changed, logits.float())
            chosen = logits.argmax(-1) if draws is None else self.sample(logits, draws[:, step])
            tokens = chosen.tolist()
            for index, token in zip(alive, tokens, strict=True):
                answers[index].append(token)
            going = [row for row, token in enumerate(tokens) if token not in self.ends]
            if not going or step == decoding.max_new_tokens - 1:
                break
            if len(going) < len(alive):
                kept = torch.tensor(going, device=self.device)
                cache.batch_select_indices(kept)
                chosen, mask = chosen[kept], mask[kept]
                if noised:
                    noised_cache.batch_select_indices(kept)
                    seeing = seeing[kept]
                alive = [alive[row] for row in going]
                draws = None if draws is None else draws[kept]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            embeddings = self.inner.get_input_embeddings()(chosen[:, None])
            logits = self.read(embeddings, mask, cache)
            if noised:
                of_noised = self.read(embeddings, mask, noised_cache)
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

    def search(
        self,
        inputs: dict[str, Tensor],
        indices: Sequence[int],
        processors: Sequence[LogitsProcessor] = (),
    ) -> dict[int, list[int]]:
        """Answers by `model.generate`: beams, and families that cannot share image features."""
        seeds = [number for index in indices for number in self.seeds[index]]
        original = self.inner.generation_config
        # What a call leaves open, generate() takes from here, where a checkpoint has its defaults.
        self.inner.generation_config = self.settings
        try:
            beams = self.decoding.num_beams
            with torch.random.fork_rng(), features_checked(self.inner, inputs, beams):
                torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
                output = self.model.generate(
                    **inputs, logits_processor=LogitsProcessorList(processors)
                )
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

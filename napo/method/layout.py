"""Rows as token ids, laid out for one forward pass: the shared prefix, or padded rows.

All responses of a row answer the same image and question. They are laid out as one sequence
`prompt | y_1 | y_2 | ...` whose positions continue from the prompt's end for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napo.config.variants import CORRUPTED, RESPONSES
from napo.errors import NapoError, unknown
from napo.models.prompts import (
    PromptInputs,
    corrupt_image,
    prompt_inputs,
    render,
    response_ids,
    stack_pixels,
)

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from napo.method.tensors import LogProbs

LAYOUTS = ("shared", "padded")
CORRUPTIONS = ("crop", "mask_token")
PADDING = -1  # segment of padding tokens
PROMPT = 0  # segment of prompt tokens; responses count from 1


@dataclass(frozen=True)
class EncodedRow:
    """A row as token ids: prompts, and which responses follow each of them.

    Attributes:
        id: the row's id.
        prompts: the prompt, and the one with the corrupted image where it is asked for.
        answers: response -> (number of its prompt, token ids with the end token where it counts).
        shortened: names of responses that `max_length` cut.
    """

    id: str
    prompts: tuple[PromptInputs, ...]
    answers: dict[str, tuple[int, list[int]]]
    shortened: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Rows laid out for one forward pass.

    Attributes:
        ids: the rows' ids.
        responses: names of the responses, in the order of the columns of `tokens`.
        input_ids: shape (sequences, length), padded on the right.
        positions: position of each token in its own prompt-and-response, same shape.
        segments: 0 for the prompt, 1, 2 ... for responses, -1 for padding, same shape.
        pixels: inputs of the vision tower.
        predictors: flat positions whose hidden states predict the targets, shape (targets,).
        targets: the token ids of all responses one after the other, shape (targets,).
        counted: which of the (batch x responses, longest response) places hold a target.
        tokens: number of tokens of each response, shape (batch, responses).
        layout: "shared" or "padded".
        shortened: how many responses `max_length` cut.
        reference: the reference's log-probs, if the rows had them.
    """

    ids: tuple[str, ...]
    responses: tuple[str, ...]
    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    pixels: dict[str, Tensor]
    predictors: Tensor
    targets: Tensor
    counted: Tensor
    tokens: Tensor
    layout: str = "shared"
    shortened: int = 0
    reference: LogProbs | None = None

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""

        def move(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: move(part) for name, part in value.items()}
            movable = hasattr(value, "to")  # a tensor, or log-probs
            return value.to(device, non_blocking=non_blocking) if movable else value

        return Batch(**{name: move(value) for name, value in vars(self).items()})

    def __len__(self) -> int:
        return len(self.ids)


def encode(
    row: Mapping[str, Any],
    processor: ProcessorMixin,
    responses: Sequence[str] = RESPONSES,
    max_length: int | None = None,
    *,
    corruption: str = "crop",
    pixels: dict[str, Tensor] | None = None,
) -> EncodedRow:
    """Token ids of a row.

    The end token counts as part of a response, unless the row says with `<response>_cut` that the
    response was stopped by the length limit. Prompt and image tokens are never cut; a response
    that does not fit loses its end.

    Args:
        row: `id`, `image` (PIL), `question`, the responses, and `<response>_cut` where known.
        processor: the model's processor.
        responses: columns to score; `chosen_corrupted` is the chosen response to a corrupted image.
        max_length: most tokens of a prompt with one response.
        corruption: "crop" or "mask_token", how that image is corrupted.
        pixels: `modality.image_pixels` of the row's image, if they were made before.

    Raises:
        NapoError: for an empty response, or a prompt longer than `max_length`, naming the row.
    """
    name, image = str(row["id"]), row["image"]
    prompts = [prompt_inputs(processor, row["question"], image, pixels=pixels)]
    if CORRUPTED in responses:
        prompts.append(_corrupted_prompt(processor, row, corruption))
    columns = ["chosen" if response == CORRUPTED else response for response in responses]
    for column in columns:
        if not (row.get(column) or "").strip():
            raise NapoError(f"Row {name} has an empty {column}; write one or drop the row.")
    text = render(processor, row["question"], image=image is not None)
    ids = response_ids(processor, text, [row[column] for column in columns])
    answers, shortened = {}, []
    for response, column, tokens in zip(responses, columns, ids, strict=True):
        if not row.get(f"{column}_cut"):
            tokens = [*tokens, processor.tokenizer.eos_token_id]
        at = 1 if response == CORRUPTED else 0
        room = len(tokens) if max_length is None else max_length - len(prompts[at].ids)
        if room < 1:
            raise NapoError(
                f"Row {name}: its prompt alone has {len(prompts[at].ids)} tokens, and max_length "
                f"is {max_length}; raise max_length or drop the row."
            )
        if room < len(tokens):
            shortened.append(response)
        answers[response] = (at, tokens[:room])
    return EncodedRow(name, tuple(prompts), answers, tuple(shortened))


def assemble(
    rows: Sequence[EncodedRow], pad: int, *, layout: str = "shared", reference: Any = None
) -> Batch:
    """Encoded rows laid out for one forward pass.

    Args:
        rows: encoded rows, all with the same responses.
        pad: id of the padding token.
        layout: "shared", or "padded" with a sequence of its own for each response.
        reference: the reference's `LogProbs` of these rows, carried along.
    """
    responses = tuple(rows[0].answers)
    sequences: list[_Sequence] = []
    # Targets come row by row and response by response, as `counted` unfolds.
    spans: list[tuple[int, int, list[int]]] = []
    for row in rows:
        opened: dict[int, int] = {}
        for prompt, tokens in row.answers.values():
            if layout == "padded" or prompt not in opened:
                opened[prompt] = len(sequences)
                sequences.append(_Sequence(row.prompts[prompt]))
            at = opened[prompt]
            spans.append((at, sequences[at].append(tokens), tokens))
    length = max(len(sequence.ids) for sequence in sequences)
    predictors: list[int] = []
    for at, start, tokens in spans:
        # The prompt's last token predicts the first token of each response.
        predictors.append(at * length + len(sequences[at].prompt.ids) - 1)
        predictors.extend(range(at * length + start, at * length + start + len(tokens) - 1))
    counts = torch.tensor([len(tokens) for _, _, tokens in spans])
    return Batch(
        ids=tuple(row.id for row in rows),
        responses=responses,
        input_ids=_padded([s.ids for s in sequences], length, pad),
        positions=_padded([s.positions for s in sequences], length, 0),
        segments=_padded([s.segments for s in sequences], length, PADDING),
        pixels=stack_pixels([s.prompt.pixels for s in sequences]),
        predictors=torch.tensor(predictors),
        targets=torch.tensor([token for _, _, tokens in spans for token in tokens]),
        counted=torch.arange(int(counts.max()))[None] < counts[:, None],
        tokens=counts.view(len(rows), len(responses)),
        layout=layout,
        shortened=sum(len(row.shortened) for row in rows),
        reference=reference,
    )


class _Sequence:
    """A prompt and the responses behind it, while a batch is laid out."""

    def __init__(self, prompt: PromptInputs) -> None:
        self.prompt = prompt
        self.ids = list(prompt.ids)
        self.positions = list(range(len(prompt.ids)))
        self.segments = [PROMPT] * len(prompt.ids)
        self._responses = 0

    def append(self, tokens: list[int]) -> int:
        """Lay a response behind the others; its last token predicts nothing and stays out."""
        start, first = len(self.ids), len(self.prompt.ids)
        self._responses += 1
        self.ids += tokens[:-1]
        self.positions += range(first, first + len(tokens) - 1)
        self.segments += [self._responses] * (len(tokens) - 1)
        return start


def _padded(values: Sequence[list[int]], length: int, fill: int) -> Tensor:
    return torch.tensor([value + [fill] * (length - len(value)) for value in values])


def _corrupted_prompt(
    processor: ProcessorMixin, row: Mapping[str, Any], corruption: str
) -> PromptInputs:
    if corruption not in CORRUPTIONS:
        raise unknown("corruption", corruption, CORRUPTIONS)
    question, image = row["question"], row["image"]
    if corruption == "mask_token":
        return prompt_inputs(processor, question, image, image_mask="mask_token")
    return prompt_inputs(processor, question, corrupt_image(image, str(row["id"])))

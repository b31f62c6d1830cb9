"""Rows as token ids, laid out for one forward pass: the shared prefix, or padded rows.

The shared prefix is `prompt | y_1 | y_2 | ...`, once for a row. The positions of each response
continue from the end of the prompt. Packed rows are several of these in one sequence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from napo.config.variants import CORRUPTED, RESPONSES
from napo.data.source_files import blank, shown
from napo.data.sources import BadRow
from napo.models.conversation import plain, render
from napo.models.prompts import (
    PromptInputs,
    corrupt_image,
    image_pixels,
    prompt_inputs,
    response_ids,
    same_length_for_all_images,
    stack_pixels,
)
from napo.workspace.pictures import BadPicture, open_rgb

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from napo.method.tensors import LogProbs

LAYOUTS = ("packed", "shared", "padded")
PADDING = -1  # segment of padding tokens
PROMPT = 0  # segment of a sequence's first prompt; its responses, then further prompts count on

# What attention to one place costs a token, as a share of its other work: in flop 1 / (6 width),
# measured 1 / 540 with the tiny model. Wider models get the same, as long masks take memory.
ATTENTION = 1 / 600


@dataclass(frozen=True)
class EncodedRow:
    """A row as token ids: its prompts and responses.

    Attributes:
        id: the row's id.
        prompts: the prompt; second, if needed, the prompt with the corrupted image.
        answers: response -> (index of its prompt, token ids; with the end token unless it was cut).
        noise: response -> its probability of being noise, for those that have one.
    """

    id: str
    prompts: tuple[PromptInputs, ...]
    answers: dict[str, tuple[int, list[int]]]
    noise: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Rows laid out for one forward pass.

    Attributes:
        ids: the rows' ids.
        responses: names of the columns of `tokens`.
        input_ids: shape (sequences, length), padded on the right.
        positions: position of each token in its own prompt and response, same shape.
        segments: number of each prompt and response in its sequence, -1 for padding, same shape.
        prompts: segment of the prompt that a token belongs to or answers, same shape.
        pixels: inputs of the vision tower, in the order of the prompts in `input_ids`.
        predictors: flat positions whose hidden states predict the targets, shape (targets,).
        targets: token ids of all responses in a row, shape (targets,).
        counted: whether a place holds a target, shape (batch x responses, longest response).
        tokens: number of tokens of each response, shape (batch, responses).
        layout: one of `LAYOUTS`.
        reference: the reference's log-probs, if the rows have them.
        posterior: response -> each row's probability that it is noise, shape (batch,).
    """

    ids: tuple[str, ...]
    responses: tuple[str, ...]
    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    prompts: Tensor
    pixels: dict[str, Tensor]
    predictors: Tensor
    targets: Tensor
    counted: Tensor
    tokens: Tensor
    layout: str = "shared"
    reference: LogProbs | None = None
    posterior: dict[str, Tensor] = field(default_factory=dict)

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


def read_row(
    row: Mapping[str, Any], position: int, responses: Sequence[str] = RESPONSES
) -> dict[str, Any]:
    """A row as `encode` takes it: with an id, and its image as PIL.

    Args:
        row: `image` (PIL, a path, bytes, a dict of `bytes` or `path`, or None for a question
            without image), `question` and the responses; `id`, by default the row's position.
        position: the row's place in its data, from 0.
        responses: columns to score; `CORRUPTED` is the chosen response to a corrupted image.

    Raises:
        BadRow: naming the row and the missing column, or why its image cannot be used.
    """
    if not isinstance(row, Mapping):
        raise BadRow(
            f"Row {position} is a {type(row).__name__}; give each row as a dict of its columns."
        )
    name = row.get("id")
    name = str(position if name is None else name)
    for column in ("image", "question", *responses):
        if column not in row and column != CORRUPTED:
            remedy = "rename or add it"
            if column in responses:
                remedy += ", or take an objective without it (notebook 01 makes biased responses)"
            raise BadRow(
                f"Row {name} has no column {column}, only {', '.join(map(str, row))}; {remedy}."
            )
        if column != "image" and not isinstance(row.get(column), str | None):
            kind = type(row[column]).__name__
            raise BadRow(f"Row {name}: its {column} is a {kind}; write it as a text.")
    image = row["image"]
    if isinstance(image, Mapping):  # as `datasets` gives it undecoded
        image = image.get("bytes") or image.get("path") or b""
    if isinstance(image, str) and not os.path.isfile(image):
        raise BadRow(
            f"Row {name}: its image cannot be used: there is no file {shown(image, 60)!r}; give a "
            "path, bytes or a PIL image (base64 text and addresses are not taken)."
        )
    if not isinstance(image, str | Path | bytes | Image.Image | None):
        raise BadRow(
            f"Row {name}: its image is a {type(image).__name__}; give a PIL image, a path or bytes."
        )
    if image is not None:
        try:
            image = open_rgb(Path(image) if isinstance(image, str) else image)
        except BadPicture as error:
            raise BadRow(f"Row {name}: its image cannot be used: {error}.") from None
    return {**row, "id": name, "image": image}


def encode(
    row: Mapping[str, Any],
    processor: ProcessorMixin,
    responses: Sequence[str] = RESPONSES,
    max_length: int | None = None,
    pixels: dict[str, Tensor] | None = None,
) -> EncodedRow:
    """Token ids of a row.

    A response ends with the end token, unless `<response>_cut` says that generation reached the
    length limit. A response that exceeds `max_length` loses its end; prompts are never cut.

    Args:
        row: from `read_row`, with `<response>_cut` and `<response>_noise` where known.
        processor: the model's processor.
        responses: columns to score; `CORRUPTED` is the chosen response to a corrupted image.
        max_length: maximum number of tokens of a prompt with one response.
        pixels: the image as inputs of the vision tower, if known.

    Raises:
        BadRow: for a response that shows nothing or has no tokens, a prompt longer than
            `max_length`, or an image that the model's processor refuses; names the row.
    """
    name, question, image = str(row["id"]), row["question"], row["image"]
    columns = ["chosen" if response == CORRUPTED else response for response in responses]
    for column in columns:
        if blank(plain(processor, row.get(column) or "")):
            raise BadRow(f"Row {name} has an empty {column}; write one or drop the row.")
    try:
        prompts = [prompt_inputs(processor, question, image, pixels=pixels)]
        if CORRUPTED in responses:
            prompts.append(prompt_inputs(processor, question, corrupt_image(image, name)))
    except (ValueError, ZeroDivisionError) as error:  # as for sides that are too unequal
        problem = " ".join(str(error).split())
        raise BadRow(
            f"Row {name}: the model's processor refuses its image ({problem}); replace or drop the "
            "row."
        ) from None
    text = render(processor, question, image=image is not None)
    ids = response_ids(processor, text, [row[column] for column in columns])
    answers = {}
    for response, column, tokens in zip(responses, columns, ids, strict=True):
        if not tokens:
            raise BadRow(
                f"Row {name} has a {column} without tokens in this model's vocabulary; write "
                "another or drop the row."
            )
        if not row.get(f"{column}_cut"):
            tokens = [*tokens, processor.tokenizer.eos_token_id]
        prompt = 1 if response == CORRUPTED else 0
        prompt_length = len(prompts[prompt].ids)
        room = len(tokens) if max_length is None else max_length - prompt_length
        if room < 1:
            raise BadRow(
                f"Row {name}: its prompt alone has {prompt_length} tokens, and max_length is "
                f"{max_length}; raise max_length or drop the row."
            )
        answers[response] = (prompt, tokens[:room])
    noise = {name: row.get(f"{name}_noise") for name in responses}
    noise = {name: float(value) for name, value in noise.items() if value is not None}
    return EncodedRow(name, tuple(prompts), answers, noise)


def row_check(
    processor: ProcessorMixin, max_length: int
) -> Callable[[Mapping[str, Any], Sequence[str]], None]:
    """A check that raises `BadRow` for a row and responses that scoring would refuse.

    If all images have equally many tokens, none is preprocessed. Otherwise each image is, and its
    crop for mDPO.
    """
    pixels = None
    if same_length_for_all_images(processor):
        pixels = image_pixels(processor, Image.new("RGB", (24, 24)))

    def check(row: Mapping[str, Any], responses: Sequence[str]) -> None:
        if blank(plain(processor, row["question"])):
            raise BadRow(
                f"Row {row['id']}: its question holds special tokens only; write one or drop the "
                "row."
            )
        if pixels is None and row["image"] is not None:
            responses = (*responses, CORRUPTED)
        encode(row, processor, responses, max_length, pixels)

    return check


def pack(lengths: Sequence[int]) -> list[list[int]]:
    """Distribute parts over sequences so that a padded batch of them costs least.

    For each number of sequences, the longest part goes first, always into the emptiest sequence.
    Returns the parts' indices, a list for each sequence.
    """

    def cost(number: int, longest: float) -> float:
        return number * (longest + ATTENTION * longest**2)

    longest, total = max(lengths), sum(lengths)
    order = sorted(range(len(lengths)), key=lambda part: -lengths[part])
    best = [[part] for part in range(len(lengths))]
    least = cost(len(best), longest)
    for number in range(1, len(lengths)):
        if cost(number, max(longest, total / number)) >= least:  # however well they fit
            continue
        sequences = [(0, index, []) for index in range(number)]  # the emptiest is first
        for part in order:
            length, index, parts = sequences[0]
            heapreplace(sequences, (length + lengths[part], index, [*parts, part]))
        price = cost(number, max(length for length, *_ in sequences))
        if price < least:
            least, best = price, [parts for *_, parts in sequences]
    return sorted(map(sorted, best))


def assemble(
    rows: Sequence[EncodedRow], pad: int, *, layout: str = "shared", reference: Any = None
) -> Batch:
    """Encoded rows, all with the same responses, laid out for one forward pass.

    `pad` is the id of the padding token. The layout "padded" is one sequence a response, "shared"
    one a prompt, and in "packed" short prompts with their responses share a sequence.
    """
    parts: list[tuple[PromptInputs, list[int]]] = []  # a prompt, and its responses' indices
    answers: list[list[int]] = []  # row by row: `counted` unfolds in this order
    for row in rows:
        opened: dict[int, int] = {}  # prompt -> its part
        for prompt, tokens in row.answers.values():
            if layout == "padded" or prompt not in opened:
                opened[prompt] = len(parts)
                parts.append((row.prompts[prompt], []))
            parts[opened[prompt]][1].append(len(answers))
            answers.append(tokens)
    # The last token of a response predicts nothing, so it is left out.
    lengths = [
        len(prompt.ids) + sum(len(answers[index]) - 1 for index in indices)
        for prompt, indices in parts
    ]
    packed = pack(lengths) if layout == "packed" else [[part] for part in range(len(parts))]
    length = max(sum(lengths[part] for part in sequence) for sequence in packed)
    laid: list[list[tuple[int, int, int, int]]] = []  # id, position, segment, prompt of each token
    pixels: list[dict[str, Tensor]] = []
    predictors: list[list[int]] = [[]] * len(answers)
    for number, sequence in enumerate(packed):
        laid.append(tokens := [])
        segment = PROMPT
        for prompt, indices in (parts[part] for part in sequence):
            own, first = segment, len(prompt.ids)
            tokens += [(token, place, own, own) for place, token in enumerate(prompt.ids)]
            last = number * length + len(tokens) - 1
            pixels.append(prompt.pixels)
            for index in indices:
                segment += 1
                start, ids = number * length + len(tokens), answers[index][:-1]
                # The prompt's last token predicts the first token of each response.
                predictors[index] = [last, *range(start, start + len(ids))]
                tokens += [(token, place, segment, own) for place, token in enumerate(ids, first)]
            segment += 1
        tokens += [(pad, 0, PADDING, PADDING)] * (length - len(tokens))
    input_ids, positions, segments, prompts = torch.tensor(laid).permute(2, 0, 1).contiguous()
    counts = torch.tensor([len(tokens) for tokens in answers])
    responses = tuple(rows[0].answers)
    return Batch(
        ids=tuple(row.id for row in rows),
        responses=responses,
        input_ids=input_ids,
        positions=positions,
        segments=segments,
        prompts=prompts,
        pixels=stack_pixels(pixels),
        predictors=torch.tensor([place for places in predictors for place in places]),
        targets=torch.tensor([token for tokens in answers for token in tokens]),
        counted=torch.arange(int(counts.max()))[None] < counts[:, None],
        tokens=counts.view(len(rows), len(responses)),
        layout=layout,
        reference=reference,
        posterior={name: torch.tensor([row.noise[name] for row in rows]) for name in rows[0].noise},
    )

"""Log-probabilities of several responses to one prompt, in one shared-prefix pass.

All responses of a row answer the same image and question. They are laid out as one sequence
`prompt | y_1 | y_2 | ...` in which each response attends to the prompt and to itself only, and its
positions continue from the prompt's end: the image and the prompt are computed once, and the
vocabulary is projected at response positions only. The numbers equal those of separate sequences
to rounding. Models whose positions or masks cannot be set this way get padded rows, one a response.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napo import modality
from napo.errors import NapoError, unknown

if TYPE_CHECKING:
    from transformers import ProcessorMixin

RESPONSES = ("chosen", "rejected", "language_biased", "vision_biased")
CORRUPTED = "chosen_corrupted"  # the chosen response to a corrupted image (mDPO)
LAYOUTS = ("shared", "padded")
CORRUPTIONS = ("crop", "mask_token")
_PADDING = -1  # segment of padding tokens
_PROMPT = 0  # segment of prompt tokens; responses count from 1


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of the responses of a batch of rows.

    Attributes:
        sum: summed over the tokens of each response, shape (batch, responses).
        tokens: number of tokens, shape (batch, responses).
        responses: names of the columns.
    """

    sum: Tensor
    tokens: Tensor
    responses: tuple[str, ...]

    @property
    def mean(self) -> Tensor:
        """Averaged over the tokens of each response, shape (batch, responses)."""
        return self.sum / self.tokens

    def of(self, response: str) -> tuple[Tensor, Tensor]:
        """Sum and mean of one response, shape (batch,) each.

        Raises:
            NapoError: when the response was not scored.
        """
        if response not in self.responses:
            raise unknown("response", response, self.responses)
        at = self.responses.index(response)
        return self.sum[:, at], self.sum[:, at] / self.tokens[:, at]

    def to(self, device: Any, non_blocking: bool = False) -> LogProbs:
        """The same numbers on another device."""
        moved = (x.to(device, non_blocking=non_blocking) for x in (self.sum, self.tokens))
        return LogProbs(*moved, self.responses)

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping[str, Any]], responses: Sequence[str] = RESPONSES
    ) -> LogProbs:
        """The reference's log-probs from the columns `<response>_logp` and `<response>_tokens`.

        Raises:
            NapoError: when a row lacks one of them.
        """
        try:
            sums = [[float(row[f"{name}_logp"]) for name in responses] for row in rows]
            tokens = [[int(row[f"{name}_tokens"]) for name in responses] for row in rows]
        except KeyError as missing:
            raise NapoError(
                f"The rows have no reference column {missing}; score them with "
                "napo.logprobs.score_reference and join its columns by id."
            ) from None
        return cls(torch.tensor(sums, dtype=torch.float64), torch.tensor(tokens), tuple(responses))


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
    prompts: tuple[modality.PromptInputs, ...]
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
            movable = isinstance(value, Tensor | LogProbs)
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
    prompts = [modality.prompt_inputs(processor, row["question"], image, pixels=pixels)]
    if CORRUPTED in responses:
        prompts.append(_corrupted_prompt(processor, row, corruption))
    columns = ["chosen" if response == CORRUPTED else response for response in responses]
    for column in columns:
        if not (row.get(column) or "").strip():
            raise NapoError(f"Row {name} has an empty {column}; write one or drop the row.")
    text = modality.render(processor, row["question"], image=image is not None)
    ids = modality.response_ids(processor, text, [row[column] for column in columns])
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
        segments=_padded([s.segments for s in sequences], length, _PADDING),
        pixels=modality.stack_pixels([s.prompt.pixels for s in sequences]),
        predictors=torch.tensor(predictors),
        targets=torch.tensor([token for _, _, tokens in spans for token in tokens]),
        counted=torch.arange(int(counts.max()))[None] < counts[:, None],
        tokens=counts.view(len(rows), len(responses)),
        layout=layout,
        shortened=sum(len(row.shortened) for row in rows),
        reference=reference,
    )


def collate(
    rows: Sequence[Mapping[str, Any]],
    processor: ProcessorMixin,
    responses: Sequence[str] = RESPONSES,
    max_length: int | None = None,
    *,
    layout: str = "shared",
    corruption: str = "crop",
) -> Batch:
    """Rows of RLAIF-V-Bias as one batch; `encode` and `assemble` in one call.

    The reference's log-probs come along where all rows have them.

    Args:
        rows: the rows, images decoded.
        processor: the model's processor.
        responses: which responses to score.
        max_length: most tokens of a prompt with one response.
        layout: "shared", or "padded" with a sequence of its own for each response.
        corruption: how the image of `chosen_corrupted` is corrupted, "crop" or "mask_token".

    Raises:
        NapoError: as `encode`.
    """
    encoded = [encode(row, processor, responses, max_length, corruption=corruption) for row in rows]
    scored = all(f"{name}_logp" in row for row in rows for name in responses)
    reference = LogProbs.from_rows(rows, responses) if scored else None
    return assemble(encoded, pad_id(processor), layout=layout, reference=reference)


def response_logprobs(model: nn.Module, batch: Batch, *, logits_mb: float = 256) -> LogProbs:
    """Log-probabilities of a batch's responses under a model, with gradients where it has them.

    The vocabulary projection happens inside the model's own forward pass, so that the hooks of
    DDP, FSDP, DeepSpeed and PEFT wrappers see it.

    Args:
        model: the model, wrapped or not.
        batch: from `collate`, on the model's device.
        logits_mb: most megabytes of float32 logits held at any time, gradients included.

    Returns:
        Sums and token counts, shape (batch, responses), sums in float32 or wider.
    """
    inner = unwrap(model)
    inputs = {"input_ids": batch.input_ids, **batch.pixels, "use_cache": False}
    if batch.layout == "shared":
        inputs["attention_mask"] = attention_mask(batch.segments, inner)
        inputs["position_ids"] = position_ids(batch, inner)
    else:
        inputs["attention_mask"] = (batch.segments != _PADDING).long()
        if has_axes(inner):
            inputs["position_ids"] = position_ids(batch, inner)
    with _logprobs_for_logits(inner, batch, logits_mb):
        values = model(**inputs).logits
    shape = batch.counted.shape
    # Placing before summing keeps the order of additions fixed, unlike index_add on a GPU.
    placed = values.new_zeros(shape).masked_scatter(batch.counted, values)
    return LogProbs(placed.sum(-1).view_as(batch.tokens), batch.tokens, batch.responses)


def has_axes(model: nn.Module) -> bool:
    """Whether positions have axes of time, height and width, as in Qwen2.5-VL."""
    return hasattr(getattr(model, "model", None), "get_rope_index")


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
    prompt = batch.segments == _PROMPT
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
    visible = ((keys == queries) | (keys == _PROMPT)) & (places[None, :] <= places[:, None])
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


def score_reference(
    model: nn.Module,
    processor: ProcessorMixin,
    rows: Sequence[Mapping[str, Any]],
    responses: Sequence[str] = RESPONSES,
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    logits_mb: float = 256,
    corruption: str = "crop",
    progress: Any = None,
) -> list[dict[str, Any]]:
    """The reference's log-probs of rows, as rows of Parquet.

    Args:
        model: the reference model; set to evaluation mode.
        processor: its processor.
        rows: rows of RLAIF-V-Bias, images decoded.
        responses: which responses to score; add `chosen_corrupted` for mDPO.
        batch_size: rows a forward pass.
        max_length: most tokens of a prompt with one response.
        logits_mb: most megabytes of float32 logits held at any time.
        corruption: how the image of `chosen_corrupted` is corrupted.
        progress: a `napo.progress.Progress` to advance by each row.

    Returns:
        For each row, in order: `id`, `<response>_logp`, `<response>_tokens`.
    """
    model.eval()
    layout = choose_layout(model)
    encoded = [encode(row, processor, responses, max_length, corruption=corruption) for row in rows]
    # Rows of like length side by side waste little padding; results go back in the rows' order.
    order = sorted(range(len(rows)), key=lambda at: _size(encoded[at]))
    device = next(model.parameters()).device
    scored: dict[int, dict[str, Any]] = {}
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        batch = assemble([encoded[at] for at in chunk], pad_id(processor), layout=layout)
        with torch.inference_mode():
            found = response_logprobs(model, batch.to(device), logits_mb=logits_mb)
        sums, tokens = found.sum.double().tolist(), found.tokens.tolist()
        for at, row_sums, row_tokens in zip(chunk, sums, tokens, strict=True):
            scored[at] = {"id": encoded[at].id}
            for name, value, count in zip(found.responses, row_sums, row_tokens, strict=True):
                scored[at] |= {f"{name}_logp": value, f"{name}_tokens": count}
        if progress is not None:
            progress.advance(len(chunk))
    return [scored[at] for at in range(len(rows))]


def check_reference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse reference log-probs that were made from something else.

    Args:
        found: what the cache was made from (fingerprints of model, data, preprocessing ...).
        wanted: what this run is made from.

    Raises:
        NapoError: saying what changed.
    """
    changed = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
    if changed:
        pairs = ", ".join(f"{k} was {found.get(k)} and is {wanted.get(k)}" for k in changed)
        raise NapoError(
            f"The reference log-probs are stale: {pairs}; delete them and run "
            "notebooks/01_build_biased_data.ipynb again."
        )


def pad_id(processor: ProcessorMixin) -> int:
    """Id of the token that fills up short sequences (any will do: it is masked)."""
    tokenizer = processor.tokenizer
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def unwrap(model: nn.Module) -> nn.Module:
    """The Hugging Face model inside DDP, DeepSpeed, torch.compile and PEFT wrappers."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model


class _Sequence:
    """A prompt and the responses behind it, while a batch is laid out."""

    def __init__(self, prompt: modality.PromptInputs) -> None:
        self.prompt = prompt
        self.ids = list(prompt.ids)
        self.positions = list(range(len(prompt.ids)))
        self.segments = [_PROMPT] * len(prompt.ids)
        self._responses = 0

    def append(self, tokens: list[int]) -> int:
        """Lay a response behind the others; its last token predicts nothing and stays out."""
        start, first = len(self.ids), len(self.prompt.ids)
        self._responses += 1
        self.ids += tokens[:-1]
        self.positions += range(first, first + len(tokens) - 1)
        self.segments += [self._responses] * (len(tokens) - 1)
        return start


def _size(row: EncodedRow) -> int:
    return len(row.prompts[0].ids) + sum(len(tokens) for _, tokens in row.answers.values())


def _padded(values: Sequence[list[int]], length: int, fill: int) -> Tensor:
    return torch.tensor([value + [fill] * (length - len(value)) for value in values])


def _corrupted_prompt(
    processor: ProcessorMixin, row: Mapping[str, Any], corruption: str
) -> modality.PromptInputs:
    if corruption not in CORRUPTIONS:
        raise unknown("corruption", corruption, CORRUPTIONS)
    question, image = row["question"], row["image"]
    if corruption == "mask_token":
        return modality.prompt_inputs(processor, question, image, image_mask="mask_token")
    return modality.prompt_inputs(
        processor, question, modality.corrupt_image(image, str(row["id"]))
    )


def _block_mask(segments: Tensor) -> Any:
    """The shared-prefix mask for flex_attention."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = segments[batch, key] == segments[batch, query]
        return (same | (segments[batch, key] == _PROMPT)) & (key <= query)

    rows, length = segments.shape
    return create_block_mask(visible, rows, None, length, length, device=segments.device)


@contextmanager
def _logprobs_for_logits(model: nn.Module, batch: Batch, logits_mb: float) -> Iterator[None]:
    """Let the output layer give log-probs of the batch's targets in place of logits.

    Replacing what the layer computes, rather than calling it ourselves, leaves the pass inside
    `forward`: gradients of wrapped models stay in step, and LoRA on this layer still works.
    """
    head = model.get_output_embeddings()
    if getattr(model.config.get_text_config(), "final_logit_softcapping", None):
        raise NapoError(
            f"{type(model).__name__} caps its logits after the output layer, which napo cannot "
            "score; use another model."
        )
    project, replaced = head.forward, vars(head).get("forward")

    def targets_only(hidden: Tensor) -> Tensor:
        picked = hidden.flatten(0, -2)[batch.predictors]
        return token_logprobs(project, picked, batch.targets, head.weight.shape[0], logits_mb)

    head.forward = targets_only
    try:
        yield
    finally:
        if replaced is None:
            del head.forward
        else:  # a hook of accelerate's had replaced it before
            head.forward = replaced


def token_logprobs(
    project: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    vocabulary: int,
    logits_mb: float,
) -> Tensor:
    """Log-probability of each target, the logits made in chunks and again when gradients need them.

    Args:
        project: the output layer, hidden states -> logits.
        hidden: shape (targets, width).
        targets: token ids, shape (targets,).
        vocabulary: number of logits.
        logits_mb: most megabytes of float32 logits held at any time.

    Returns:
        Log-probs, shape (targets,), in float32 or wider.
    """

    def score(states: Tensor, tokens: Tensor) -> Tensor:
        logits = project(states)
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        return -nn.functional.cross_entropy(logits, tokens, reduction="none")

    # Logits, their log-softmax, and the gradient of either.
    rows = max(1, int(logits_mb * 2**20 / (3 * 4 * vocabulary)))
    if hidden.shape[0] <= rows:
        return score(hidden, targets)
    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    if not (torch.is_grad_enabled() and hidden.requires_grad):
        return torch.cat([score(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks])

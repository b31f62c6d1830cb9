"""Log-probabilities of several responses to one prompt, in one shared-prefix pass.

Each response attends to the prompt and to itself only. So the image and the prompt are computed
once, and the vocabulary is projected at response positions only. The numbers equal those of
separate sequences to rounding. Short rows are packed into one sequence, where no row sees another.
Models that do not accept such masks or positions get padded rows, one a response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napo.config.variants import RESPONSES
from napo.errors import NapoError
from napo.method.layout import PADDING, Batch, EncodedRow, assemble, encode, read_row
from napo.method.mask import attention_mask, choose_layout, position_ids
from napo.method.tensors import LogProbs
from napo.models.halving import Halving
from napo.models.image_tokens import features_checked
from napo.models.load import has_axes, unwrap
from napo.models.prompts import pad_id

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def collate(
    rows: Sequence[Mapping[str, Any]],
    processor: ProcessorMixin,
    responses: Sequence[str] = RESPONSES,
    max_length: int | None = None,
    *,
    layout: str = "shared",
) -> Batch:
    """Rows of RLAIF-V-Bias as one batch: `encode` and `assemble` in one call, with their arguments.

    The batch has the reference's log-probs if all rows have them.
    """
    read = (read_row(row, position, responses) for position, row in enumerate(rows))
    encoded = [encode(row, processor, responses, max_length) for row in read]
    scored = all(f"{name}_logp" in row for row in rows for name in responses)
    reference = LogProbs.from_rows(rows, responses) if scored else None
    return assemble(encoded, pad_id(processor), layout=layout, reference=reference)


def response_logprobs(model: nn.Module, batch: Batch, *, logits_mb: float = 256) -> LogProbs:
    """Log-probabilities of a batch's responses under a model, with gradients.

    The vocabulary projection runs inside the model's own forward pass, so that the hooks of DDP,
    FSDP, DeepSpeed and PEFT wrappers see it.

    Args:
        model: the model, wrapped or not.
        batch: from `collate`, on the model's device.
        logits_mb: limit for float32 logits in memory, gradients included, in megabytes.

    Returns:
        Sums and token counts, shape (batch, responses), sums in float32 or wider.

    Raises:
        NapoError: when an image has other numbers of visual tokens and features.
    """
    inner = unwrap(model)
    inputs = {"input_ids": batch.input_ids, **batch.pixels, "use_cache": False}
    shared = batch.layout != "padded"
    inputs["attention_mask"] = (
        attention_mask(batch, inner) if shared else (batch.segments != PADDING).long()
    )
    counted = features_checked(inner, inputs, prompts=batch.prompts)
    with counted, _targets_scored(inner, batch, logits_mb):
        if shared or has_axes(inner):
            inputs["position_ids"] = position_ids(batch, inner)
        values = model(**inputs).logits
    shape = batch.counted.shape
    # Placing before summing keeps the order of additions fixed, unlike index_add on a GPU.
    placed = values.new_zeros(shape).masked_scatter(batch.counted, values)
    return LogProbs(placed.sum(-1).view_as(batch.tokens), batch.tokens, batch.responses)


def score_reference(
    model: nn.Module,
    processor: ProcessorMixin,
    rows: Sequence[Mapping[str, Any]],
    responses: Sequence[str] = RESPONSES,
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    logits_mb: float = 256,
) -> list[dict[str, Any]]:
    """The reference's log-probs of rows.

    Args:
        model: the reference model; set to evaluation mode.
        processor: its processor.
        rows: rows of RLAIF-V-Bias, images decoded.
        responses: responses to score; add `CORRUPTED` for mDPO.
        batch_size: rows a forward pass. Halved, with a warning, if memory runs out; the other
            padding may then change the last digits.
        max_length: as in `encode`.
        logits_mb: as in `response_logprobs`.

    Returns:
        For each row, in order: `id`, `<response>_logp`, `<response>_tokens`.

    Raises:
        NapoError: as `encode`, or if one row does not fit into memory.
    """
    read = (read_row(row, position, responses) for position, row in enumerate(rows))
    encoded = [encode(row, processor, responses, max_length) for row in read]
    return score_encoded(
        model, encoded, pad_id(processor), batch_size=batch_size, logits_mb=logits_mb
    )


def score_encoded(
    model: nn.Module,
    rows: Sequence[EncodedRow],
    pad: int,
    *,
    batch_size: int = 16,
    logits_mb: float = 256,
) -> list[dict[str, Any]]:
    """The log-probs of encoded rows, as `score_reference` gives them; all have the same responses.

    `pad` is the id of the padding token; the other arguments are those of `score_reference`.
    """
    model.eval()
    layout = choose_layout(model)
    # Neighbours of similar length need little padding. Results keep the order of `rows`.
    lengths = [
        len(row.prompts[0].ids) + sum(len(tokens) for _, tokens in row.answers.values())
        for row in rows
    ]
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    device = next(model.parameters()).device
    scores: dict[int, dict[str, Any]] = {}
    halving = Halving("rows", "lower max_length or logits_mb, or use a larger GPU")

    def score(indices: list[int]) -> LogProbs:
        batch = assemble([rows[index] for index in indices], pad, layout=layout)
        with torch.inference_mode():
            return response_logprobs(model, batch.to(device), logits_mb=logits_mb)

    for start in range(0, len(order), batch_size):
        for indices, values in halving(score, order[start : start + batch_size]):
            sums, tokens = values.sum.double().tolist(), values.tokens.tolist()
            for index, row_sums, row_tokens in zip(indices, sums, tokens, strict=True):
                scores[index] = {"id": rows[index].id}
                for name, value, count in zip(values.responses, row_sums, row_tokens, strict=True):
                    scores[index] |= {f"{name}_logp": value, f"{name}_tokens": count}
    return [scores[index] for index in range(len(rows))]


@contextmanager
def _targets_scored(model: nn.Module, batch: Batch, logits_mb: float) -> Iterator[None]:
    """Let the output layer return log-probs of the batch's targets instead of logits.

    The layer is changed, not called from outside, so that the pass stays inside `forward`:
    gradients of wrapped models stay synchronised, and LoRA on this layer still works.
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
        else:  # accelerate had already replaced it by a hook
            head.forward = replaced


def token_logprobs(
    project: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    vocabulary: int,
    logits_mb: float,
) -> Tensor:
    """Log-probability of each target. Logits are computed in chunks, and again for gradients.

    Args:
        project: the output layer, hidden states -> logits.
        hidden: shape (targets, width).
        targets: token ids, shape (targets,).
        vocabulary: number of logits.
        logits_mb: limit for float32 logits in memory, in megabytes.

    Returns:
        Log-probs, shape (targets,), in float32 or wider.
    """

    def score(states: Tensor, tokens: Tensor) -> Tensor:
        logits = project(states)
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        return -nn.functional.cross_entropy(logits, tokens, reduction="none")

    # Three arrays of this size exist at a time: logits, their log-softmax, its gradient.
    rows = max(1, int(logits_mb * 2**20 / (3 * 4 * vocabulary)))
    if hidden.shape[0] <= rows:
        return score(hidden, targets)
    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    if not (torch.is_grad_enabled() and hidden.requires_grad):
        return torch.cat([score(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks])

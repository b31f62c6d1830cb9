"""Log-probabilities of several responses to one prompt, in one shared-prefix pass.

All responses of a row answer the same image and question. They are laid out as one sequence
`prompt | y_1 | y_2 | ...` in which each response attends to the prompt and to itself only, and its
positions continue from the prompt's end: the image and the prompt are computed once, and the
vocabulary is projected at response positions only. The numbers equal those of separate sequences
to rounding. Models whose positions or masks cannot be set this way get padded rows, one a response.
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
from napo.method.layout import PADDING, Batch, EncodedRow, assemble, encode
from napo.method.mask import attention_mask, choose_layout, position_ids
from napo.method.tensors import LogProbs
from napo.models.halving import Halving
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
        inputs["attention_mask"] = (batch.segments != PADDING).long()
        if has_axes(inner):
            inputs["position_ids"] = position_ids(batch, inner)
    with _logprobs_for_logits(inner, batch, logits_mb):
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
    corruption: str = "crop",
    progress: Any = None,
) -> list[dict[str, Any]]:
    """The reference's log-probs of rows, as rows of Parquet.

    Args:
        model: the reference model; set to evaluation mode.
        processor: its processor.
        rows: rows of RLAIF-V-Bias, images decoded.
        responses: which responses to score; add `chosen_corrupted` for mDPO.
        batch_size: rows a forward pass; halved, with a warning, where memory runs out (rows of
            another batch have another padding, which may change the last digits).
        max_length: most tokens of a prompt with one response.
        logits_mb: most megabytes of float32 logits held at any time.
        corruption: how the image of `chosen_corrupted` is corrupted.
        progress: a `napo.progress.Progress` to advance by each row.

    Returns:
        For each row, in order: `id`, `<response>_logp`, `<response>_tokens`.

    Raises:
        NapoError: as `encode`, or when memory does not hold one row.
    """
    model.eval()
    layout = choose_layout(model)
    encoded = [encode(row, processor, responses, max_length, corruption=corruption) for row in rows]
    # Rows of like length side by side waste little padding; results go back in the rows' order.
    order = sorted(range(len(rows)), key=lambda at: _size(encoded[at]))
    device = next(model.parameters()).device
    scored: dict[int, dict[str, Any]] = {}
    halving = Halving("rows", "lower max_length or logits_mb, or use a larger GPU")

    def scores(chunk: list[int]) -> LogProbs:
        batch = assemble([encoded[at] for at in chunk], pad_id(processor), layout=layout)
        with torch.inference_mode():
            return response_logprobs(model, batch.to(device), logits_mb=logits_mb)

    for start in range(0, len(order), batch_size):
        for chunk, found in halving(scores, order[start : start + batch_size]):
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


def _size(row: EncodedRow) -> int:
    return len(row.prompts[0].ids) + sum(len(tokens) for _, tokens in row.answers.values())


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

"""What a run trains on: rows as token ids and pixels, and the order in which they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback

from napo.config.variants import CORRUPTED
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.layout import Batch, EncodedRow, assemble, encode
from napo.method.tensors import LogProbs
from napo.models.prompts import pad_id, same_length_for_all_images
from napo.progress import Progress
from napo.workspace.files import fingerprint

CACHE_BYTES = 2**30  # encoded rows up to this size stay in memory for all epochs


class EncodedRows(Dataset):
    """Rows as token ids and pixels, with the reference's log-probs.

    Rows that fit into memory are encoded once. Of larger data the texts are checked first, so that
    no row stops the run later for its length or an empty response, and rows are encoded when they
    are needed.

    Args:
        rows: a Hugging Face dataset or a sequence of dicts.
        processor: the processor.
        responses: responses to score.
        max_length: most tokens of a prompt with one response.
        corruption: how mDPO's image is corrupted.
        scorer: scores the rows first if they have no reference columns.
        logits_mb: for that scoring.
        reference: whether the reference's log-probs come along.
    """

    def __init__(
        self,
        rows: Any,
        processor: Any,
        responses: Sequence[str],
        *,
        max_length: int | None = None,
        corruption: str = "crop",
        scorer: nn.Module | None = None,
        logits_mb: float = 256,
        reference: bool = True,
    ) -> None:
        self._rows, self._processor, self._responses = rows, processor, tuple(responses)
        self._settings: dict[str, Any] = {"max_length": max_length, "corruption": corruption}
        self._kept: list[EncodedRow] | None = None
        if len(rows) == 0:
            raise NapoError("There are no rows to train on.")
        first = self._encode(0)
        held = [value for prompt in first.prompts for value in prompt.pixels.values()]
        pixels = sum(value.nbytes for value in held if isinstance(value, Tensor))
        if len(rows) * (pixels + 4096) <= CACHE_BYTES:
            self._kept = [first, *(self._encode(at) for at in range(1, len(rows)))]
        else:
            self._check(first)
        self._reference = self._scores(scorer, logits_mb) if reference else None
        self.digest = self._digest()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> tuple[EncodedRow, LogProbs | None]:
        encoded = self._kept[at] if self._kept is not None else self._encode(at)
        one, reference = slice(at, at + 1), self._reference
        if reference is None:
            return encoded, None
        return encoded, LogProbs(reference.sum[one], reference.tokens[one], self._responses)

    def collate(self, items: Sequence[tuple[EncodedRow, LogProbs | None]], layout: str) -> Batch:
        """A batch of rows, laid out as `batches.assemble` does it."""
        encoded, scores = zip(*items, strict=True)
        reference = None
        if self._reference is not None:
            sums, tokens = (torch.cat([getattr(s, n) for s in scores]) for n in ("sum", "tokens"))
            reference = LogProbs(sums, tokens, self._responses)
        pad = pad_id(self._processor)
        return assemble(encoded, pad, layout=layout, reference=reference)

    def _encode(self, at: int) -> EncodedRow:
        return encode(self._rows[at], self._processor, self._responses, **self._settings)

    def _check(self, first: EncodedRow) -> None:
        """Encode every row once and keep nothing; without its image where all are equally long."""
        pixels, image = first.prompts[0].pixels, self._rows[0]["image"]
        spared = bool(pixels) and same_length_for_all_images(self._processor)
        # The corrupted image's prompt is then as long as the other, and its response the chosen.
        names = [name for name in self._responses if not spared or name != CORRUPTED]
        with Progress(len(self), "check the rows") as progress:
            for row in self._texts() if spared else self._rows:
                row = {**row, "image": image} if spared else row
                given = pixels if spared else None
                encode(row, self._processor, names, pixels=given, **self._settings)
                progress.advance()

    def _texts(self) -> Any:
        """The rows, their images not decoded where the dataset can do without."""
        removable = hasattr(self._rows, "remove_columns")
        return self._rows.remove_columns("image") if removable else self._rows

    def _scores(self, scorer: nn.Module | None, logits_mb: float) -> LogProbs:
        columns = getattr(self._rows, "column_names", None) or self._rows[0]
        needed = [f"{name}_{kind}" for name in self._responses for kind in ("logp", "tokens")]
        if all(name in columns for name in needed):
            if hasattr(self._rows, "select_columns"):  # spares decoding the images
                return LogProbs.from_rows(self._rows.select_columns(needed), self._responses)
            return LogProbs.from_rows(self._rows, self._responses)
        if scorer is None:
            raise NapoError(f"The rows lack the reference columns {', '.join(needed)}.")
        rows = [self._rows[at] for at in range(len(self._rows))]
        scored = logprobs.score_reference(
            scorer, self._processor, rows, self._responses, logits_mb=logits_mb, **self._settings
        )
        return LogProbs.from_rows(scored, self._responses)

    def _digest(self) -> str:
        if self._reference is not None:
            return fingerprint([len(self), self._reference.sum.tolist()])
        columns = {"chosen" if r == CORRUPTED else r: 0 for r in self._responses}
        return fingerprint(
            [[row[c] for c in ("id", "question", *columns)] for row in self._texts()]
        )


class EpochSampler(Sampler[int]):
    """Rows in a new order every epoch, from the seed; rows that fill no whole batch are left out.

    Args:
        count: number of rows.
        batch: rows of one optimiser step, over all processes.
        seed: the run's seed.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count, self._used, self._seed = count, count - count % batch, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._used

    def __iter__(self) -> Iterator[int]:
        import numpy as np

        # A seed of two numbers: seed 0 in epoch 1 is not seed 1 in epoch 0.
        order = np.random.default_rng([self._seed, self.epoch]).permutation(self._count)
        return iter(order[: self._used].tolist())


class Epochs(TrainerCallback):
    """Tells the sampler which epoch it is, also when a run resumes in its middle."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by `transformers.Trainer`."""
        self._sampler.epoch = int(state.epoch or 0)

"""Training data: rows as token ids and pixels, and their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from napo.config.variants import BIASED, CORRUPTED
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.layout import Batch, EncodedRow, assemble, encode, read_row
from napo.method.tensors import LogProbs
from napo.models.prompts import pad_id, same_length_for_all_images
from napo.progress import Progress
from napo.workspace.files import fingerprint

CACHE_BYTES = 2**30  # encoded rows up to this size stay in memory for all epochs


def check_rows(rows: Any) -> None:
    """Stop unless data is a table of rows that can be counted and read in any order.

    Raises:
        NapoError: with the call that makes it one.
    """
    kind = type(rows).__name__
    if isinstance(rows, Mapping):  # such as a DatasetDict
        names = ", ".join(map(str, rows))
        raise NapoError(f"The rows are a {kind} of {names}; give one of them, such as one split.")
    if isinstance(rows, str | Path):
        raise NapoError(f"The rows are the text {str(rows)[:100]!r}; give the loaded rows.")
    if hasattr(rows, "iloc"):
        raise NapoError(f"The rows are a {kind}; give its rows.to_dict('records').")
    if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        raise NapoError(
            f"The rows are a {kind}, a stream without length and order; give list(rows), or a "
            "dataset loaded without streaming."
        )
    if len(rows) == 0:
        raise NapoError("There are no rows to train on.")


class EncodedRows(Dataset):
    """Rows as token ids and pixels, with the reference's log-probs.

    Rows that fit into memory are encoded once. Larger data is encoded when it is needed; its texts
    are checked first, so that no row stops the run later.

    Args:
        rows: a Hugging Face dataset or a sequence of dicts (see `napo.method.layout.read_row`).
        processor: the model's processor.
        responses: responses to score.
        max_length: maximum number of tokens of a prompt with one response.
        scorer: the model that scores rows without reference columns.
        logits_mb: for that scoring.
        reference: whether the reference's log-probs are needed.
        posterior: whether the columns `<response>_noise` of biased responses are needed.

    Raises:
        NapoError: as `check_rows`, `napo.method.layout.read_row` and `encode`.
    """

    def __init__(
        self,
        rows: Any,
        processor: Any,
        responses: Sequence[str],
        *,
        max_length: int | None = None,
        scorer: nn.Module | None = None,
        logits_mb: float = 256,
        reference: bool = True,
        posterior: bool = False,
    ) -> None:
        check_rows(rows)
        self.rows, self.processor, self.responses = rows, processor, tuple(responses)
        self.max_length = max_length
        self.encoded: list[EncodedRow] | None = None
        # Rows without their images, which a dataset then does not decode.
        self.texts = rows.remove_columns("image") if hasattr(rows, "remove_columns") else rows
        noise = self.noise_columns() if posterior else []
        first = self.encode(0)
        pixels = [value for prompt in first.prompts for value in prompt.pixels.values()]
        row_bytes = 4096 + sum(value.nbytes for value in pixels if isinstance(value, Tensor))
        if len(rows) * row_bytes <= CACHE_BYTES:
            self.encoded = [first, *(self.encode(index) for index in range(1, len(rows)))]
            tokens = [self.token_counts(row) for row in self.encoded]
        else:
            tokens = self.check_texts(first)
        self.reference = self.reference_scores(scorer, logits_mb) if reference else None
        if self.reference is not None:
            self.check_reference(torch.tensor(tokens))
            self.digest = fingerprint([len(rows), self.reference.sum.tolist(), *noise])
        else:
            columns = dict.fromkeys("chosen" if r == CORRUPTED else r for r in self.responses)
            names = ("id", "question", *columns)
            texts = [[row.get(name) for name in names] for row in self.texts]
            self.digest = fingerprint([*texts, *noise])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[EncodedRow, LogProbs | None]:
        row = self.encoded[index] if self.encoded is not None else self.encode(index)
        if self.reference is None:
            return row, None
        sums, tokens = self.reference.sum[[index]], self.reference.tokens[[index]]
        return row, LogProbs(sums, tokens, self.responses)

    def encode(self, index: int) -> EncodedRow:
        """A row as token ids and pixels."""
        row = read_row(self.rows[index], index, self.responses)
        return encode(row, self.processor, self.responses, self.max_length)

    def token_counts(self, row: EncodedRow) -> list[int]:
        """Numbers of tokens of a row's responses; a corrupted image has those of the chosen one."""
        chosen = row.answers.get("chosen")
        return [len(row.answers.get(name, chosen)[1]) for name in self.responses]

    def collate(self, items: Sequence[tuple[EncodedRow, LogProbs | None]], layout: str) -> Batch:
        """A batch of rows (see `napo.method.layout.assemble`)."""
        rows, scores = zip(*items, strict=True)
        reference = None
        if self.reference is not None:
            sums, tokens = (torch.cat([getattr(s, n) for s in scores]) for n in ("sum", "tokens"))
            reference = LogProbs(sums, tokens, self.responses)
        return assemble(rows, pad_id(self.processor), layout=layout, reference=reference)

    def check_texts(self, first: EncodedRow) -> list[list[int]]:
        """Encode every row once, to find an empty response or a long prompt; keep token counts.

        If all images have equally many tokens, the first row's image stands for all of them.

        Raises:
            NapoError: as `napo.method.layout.read_row` and `encode`.
        """
        rows, responses, pixels, image = self.rows, self.responses, None, {}
        if first.prompts[0].pixels and same_length_for_all_images(self.processor):
            image = {"image": read_row(rows[0], 0, responses)["image"]}
            rows, pixels = self.texts, first.prompts[0].pixels
            # The corrupted image has as many tokens, and its response is the chosen one.
            responses = tuple(name for name in responses if name != CORRUPTED)
        counts = []
        with Progress(len(rows), "check the rows") as progress:
            for index, row in enumerate(rows):
                row = read_row({**row, **image}, index, responses)
                encoded = encode(row, self.processor, responses, self.max_length, pixels)
                counts.append(self.token_counts(encoded))
                progress.advance()
        return counts

    def check_reference(self, tokens: Tensor) -> None:
        """Stop if a row was scored with other texts, or cut at another length, than it has now.

        Args:
            tokens: numbers of tokens of the responses as encoded, shape (rows, responses).

        Raises:
            NapoError: naming the first such row and its response.
        """
        differing = (tokens != self.reference.tokens).nonzero()
        if not len(differing):
            return
        index, response = differing[0].tolist()
        name, count = self.responses[response], int(self.reference.tokens[index, response])
        raise NapoError(
            f"Row {self.encode(index).id}: its {name} has {int(tokens[index, response])} tokens, "
            f"and the reference scored {count}, of another text, max_length or tokenizer; score "
            f"the rows again (notebooks/01_build_biased_data.ipynb), or leave the columns "
            f"{name}_logp and {name}_tokens out."
        )

    def noise_columns(self) -> list[list[float]]:
        """The probabilities of noise, a list for each response: biased ones, and others with any.

        Raises:
            NapoError: for a row without a probability, or one outside [0, 1].
        """
        needed = [f"{name}_noise" for name in self.responses if name in BIASED]
        names = [f"{name}_noise" for name in self.responses]
        names = [name for name in names if name in needed or name in self.texts[0]]
        columns: list[list[float]] = [[] for _ in names]
        for index, row in enumerate(self.texts):
            for name, column in zip(names, columns, strict=True):
                value = row.get(name)
                try:
                    column.append(float(value))
                except (TypeError, ValueError):
                    column.append(nan)
                if not 0 <= column[-1] <= 1:
                    raise NapoError(
                        f"Row {row.get('id', index)}: its {name} is {value!r}, and q is taken from "
                        "it; label the samples (notebooks/02_annotate_noise.ipynb) and train with "
                        "notebooks/05_train.ipynb, or write a probability of noise from 0 to 1."
                    )
        return columns

    def reference_scores(self, scorer: nn.Module | None, logits_mb: float) -> LogProbs:
        """The reference's log-probs, from columns of the rows or from the scorer.

        Raises:
            NapoError: without these columns and without a scorer.
        """
        columns = getattr(self.rows, "column_names", None) or self.rows[0]
        needed = [f"{name}_{kind}" for name in self.responses for kind in ("logp", "tokens")]
        if all(name in columns for name in needed):
            select = getattr(self.rows, "select_columns", None)  # decodes no images
            return LogProbs.from_rows(select(needed) if select else self.rows, self.responses)
        if scorer is None:
            raise NapoError(f"The rows lack the reference columns {', '.join(needed)}.")
        rows = [self.rows[index] for index in range(len(self.rows))]
        scores = logprobs.score_reference(
            scorer,
            self.processor,
            rows,
            self.responses,
            max_length=self.max_length,
            logits_mb=logits_mb,
        )
        return LogProbs.from_rows(scores, self.responses)


class EpochSampler(Sampler[int]):
    """Rows in a new order in every epoch. Rows that do not fill a batch are left out.

    Set `epoch` before each pass; `napo.training.trainer` does so.

    Args:
        count: number of rows.
        batch: rows of one optimiser step, over all processes.
        seed: the run's seed.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.used, self.seed = count, count - count % batch, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.used

    def __iter__(self) -> Iterator[int]:
        # A seed of two numbers: seed 0 in epoch 1 is not seed 1 in epoch 0.
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return iter(order[: self.used].tolist())

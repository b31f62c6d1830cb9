"""`LogProbs`, the input of an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from napo.config.variants import RESPONSES
from napo.errors import NapoError, unknown
from napo.method.losses import wide

SCORE = "score them with napo.method.logprobs.score_reference and join its columns by id"


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of the responses of a batch of rows.

    Attributes:
        sum: summed over the tokens of each response, shape (batch, responses); half precision is
            widened to float32.
        tokens: number of tokens, at least 1, shape (batch, responses).
        responses: names of the columns.

    Raises:
        NapoError: for a response without tokens, whose mean is 0 / 0. Tensors on a GPU are not
            checked, because reading them would stall it; theirs come from checked rows.
    """

    sum: Tensor
    tokens: Tensor
    responses: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sum", wide(self.sum))
        if self.tokens.device.type == "cpu" and (self.tokens < 1).any():
            row, column = (self.tokens < 1).nonzero()[0].tolist()
            raise NapoError(
                f"Row {row}, counted from 0, has no tokens in its {self.responses[column]}; leave "
                "out rows with an empty response, or one that max_length cuts away."
            )

    @property
    def mean(self) -> Tensor:
        """Averaged over the tokens of each response, shape (batch, responses)."""
        return self.sum / self.tokens

    def of(self, response: str) -> tuple[Tensor, Tensor]:
        """Sum and mean of one response, shape (batch,) each.

        Raises:
            NapoError: if the response was not scored.
        """
        if response not in self.responses:
            raise unknown("response", response, self.responses)
        column = self.responses.index(response)
        return self.sum[:, column], self.sum[:, column] / self.tokens[:, column]

    def to(self, device: Any, non_blocking: bool = False) -> LogProbs:
        """The same numbers on another device."""
        moved = (part.to(device, non_blocking=non_blocking) for part in (self.sum, self.tokens))
        return LogProbs(*moved, self.responses)

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping[str, Any]], responses: Sequence[str] = RESPONSES
    ) -> LogProbs:
        """The reference's log-probs from the columns `<response>_logp` and `<response>_tokens`.

        Raises:
            NapoError: if a row lacks one of them or it holds no number, or a response has no
                tokens.
        """
        sums, tokens = [], []
        try:
            for row in rows:
                sums.append([float(row[f"{name}_logp"]) for name in responses])
                tokens.append([int(row[f"{name}_tokens"]) for name in responses])
        except KeyError as missing:
            raise NapoError(f"The rows have no reference column {missing}; {SCORE}.") from None
        except (TypeError, ValueError, OverflowError):  # as from None or a text
            position = len(tokens)
            values = {k: v for k, v in row.items() if k.endswith(("_logp", "_tokens"))}
            raise NapoError(
                f"Row {row.get('id', position)}: a reference column holds no number ({values}); "
                f"{SCORE}."
            ) from None
        return cls(torch.tensor(sums, dtype=torch.float64), torch.tensor(tokens), tuple(responses))

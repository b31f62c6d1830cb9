"""Batches as large as memory allows: one that does not fit is halved, later ones stay smaller."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from napo.errors import NapoError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Messages of PyTorch's CPU and GPU allocators, for errors without a class of their own.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


class Halving:
    """Runs a function on batches, and splits a batch in half when memory runs out.

    Args:
        unit: the items of a batch, plural, for messages.
        advice: remedy if a single item does not fit, for the error message.
    """

    def __init__(self, unit: str, advice: str) -> None:
        self.unit, self.advice = unit, advice
        self.limit: int | None = None  # largest batch that is tried, once memory has run out

    def __call__(
        self, work: Callable[[list[Item]], Result], batch: list[Item]
    ) -> Iterator[tuple[list[Item], Result]]:
        """Yield the parts of a batch, in order, each with its result."""
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            size = len(part)
            if self.limit and size > self.limit:
                waiting += [part[size // 2 :], part[: size // 2]]
                continue
            fits = True
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                fits = False  # retry outside this block: the error's frames hold tensors
            if fits:
                yield part, result
                continue
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if size == 1:
                raise NapoError(f"Memory does not hold one of the {self.unit}; {self.advice}.")
            self.limit = size // 2
            waiting.append(part)
            logging.getLogger("napo").warning(
                "Memory ran out with %d %s at a time; going on with %d.",
                size, self.unit, self.limit,
            )  # fmt: skip

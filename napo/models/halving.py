"""Batches as large as memory allows: one that does not fit is halved, and so are those after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from napo.errors import NapoError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What PyTorch's allocators say, of a GPU and of a CPU, where the error has no class of its own.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


class Halving:
    """Does work on batches, in halves of halves where memory runs out.

    Args:
        unit: what a batch consists of, plural, for the warning.
        advice: what helps when one alone does not fit, the end of a sentence.

    Attributes:
        most: the largest batch that is tried; None until memory has run out.
    """

    def __init__(self, unit: str, advice: str) -> None:
        self.unit, self.advice = unit, advice
        self.most: int | None = None

    def __call__(
        self, work: Callable[[list[Item]], Result], batch: list[Item]
    ) -> Iterator[tuple[list[Item], Result]]:
        """Work on a batch; parts of it, in order, each with its result.

        Raises:
            NapoError: when one item alone does not fit.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            if self.most and len(part) > self.most:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
                continue
            done, result = self._tried(work, part)
            if done:
                yield part, result
            else:
                self._lower(len(part))
                waiting.append(part)

    def _tried(self, work: Callable[[list[Item]], Result], part: list[Item]) -> tuple[bool, Result]:
        try:
            return True, work(part)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        return False, None  # the error is gone by now, and with it what its frames held

    def _lower(self, size: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise NapoError(f"Memory does not hold one of the {self.unit}; {self.advice}.")
        self.most = size // 2
        logging.getLogger("napo").warning(
            "Memory ran out with %d %s at a time; going on with %d.", size, self.unit, self.most
        )

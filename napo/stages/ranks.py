"""Which of several processes this one is, and how many threads it uses."""

from __future__ import annotations

import os

WORKER = "NAPO_WORKER"  # set in the processes that a stage started


_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")


def worker() -> tuple[int, int]:
    """This process's number and how many there are, as `accelerate launch` or torchrun say."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def alone() -> None:
    """Forget that this process is one of several, if no stage of ours started it as such.

    A cluster's shell or a notebook server may have been started by torchrun, whose variables say
    so to all that they start: a stage would then do its share only, or wait for the others.
    """
    if not os.environ.get(WORKER):
        for name in _RANKS:
            os.environ.pop(name, None)


def set_threads(count: int) -> None:
    """One thread count everywhere: a count of 1 or 2 gives different last bits."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(count)

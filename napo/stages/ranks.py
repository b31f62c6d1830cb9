"""This process's rank among the processes of a stage, and its number of threads."""

from __future__ import annotations

import os

WORKER = "NAPO_WORKER"  # set in the processes that a stage starts
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")


def worker() -> tuple[int, int]:
    """This process's rank and the number of processes, as accelerate or torchrun set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def alone() -> None:
    """Forget the ranks in the environment, unless a stage started this process.

    A cluster's shell or a notebook server may run under torchrun and pass its variables on. A
    stage would then do one share only, or wait for processes that do not exist.
    """
    if not os.environ.get(WORKER):
        for name in RANKS:
            os.environ.pop(name, None)


def set_threads(count: int) -> None:
    """Use the same number of threads everywhere: 1 and 2 threads give different last bits."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(count)

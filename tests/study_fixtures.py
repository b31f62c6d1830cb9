"""A world's `reword` for the noise study's tests, and outcomes with known differences."""

import pandas as pd

from napo.config.study import Noise
from napo.noise.study import Cell, Job


def reword(row, rng):
    """The chosen response in other words."""
    return f"Indeed: {row['chosen']}"


def cell(loss, seed=0, rate=0.4, kind="flip", budget="long"):
    return Cell(Job(budget, Noise(kind, rate), seed), loss)


def outcome(**metrics):
    """The outcomes of a cell: for each metric the values of items 0, 1, ..."""
    return {name: pd.Series(values, dtype=float) for name, values in metrics.items()}


def steps(psi, memorised, q=float("nan")):
    """A run's averages of each step, with four noisy rows in each."""
    count = len(psi)
    return pd.DataFrame({"step": range(count), "psi": psi, "q": q, "noisy": 4,
                         "memorised": memorised})  # fmt: skip

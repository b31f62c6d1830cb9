"""95 % bootstrap intervals of ratio metrics, resampled by image or instance.

Every metric is a ratio of two sums over items. One matrix of resampling counts therefore serves
all metrics of a benchmark, and the same counts pair two runs item by item.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from napo.config.benchmarks import Ratio

DRAWS = 2000
BLOCK = 100  # samples drawn at a time: the 64-bit counts of all of them need twice the memory


@lru_cache(maxsize=4)
def weights(count: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each of `count` items is drawn in each bootstrap sample: (draws, count)."""
    rng, even = np.random.default_rng(seed), np.full(count, 1 / count)
    drawn = np.empty((draws, count), np.float32)
    for start in range(0, draws, BLOCK):
        part = drawn[start : start + BLOCK]
        part[:] = rng.multinomial(count, even, size=len(part))
    return drawn


def resampled(items: pd.DataFrame, ratio: Ratio, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """The metric in each bootstrap sample: (draws,); nan where its denominator is 0.

    Items with an `image` column are drawn by image: questions about one picture stay together.
    """
    sums = items[list({ratio.numerator, ratio.denominator})]
    if "image" in items:
        sums = sums.groupby(items["image"], sort=False).sum()
    counts = weights(len(sums), draws, seed)
    top = counts @ sums[ratio.numerator].to_numpy(np.float64)
    bottom = counts @ sums[ratio.denominator].to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ratio.scale * top / bottom


def value(items: pd.DataFrame, ratio: Ratio) -> float:
    """The metric itself; 0 where its denominator is 0, as the official scorers print."""
    bottom = items[ratio.denominator].sum()
    return float(ratio.scale * items[ratio.numerator].sum() / bottom) if bottom else 0.0


def percentile(samples: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the finite samples; nan when there are none."""
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(
    items: pd.DataFrame, ratio: Ratio, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a metric."""
    return percentile(resampled(items, ratio, draws, seed))

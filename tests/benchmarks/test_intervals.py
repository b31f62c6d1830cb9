"""Bootstrap intervals of ratios of sums."""

import math

import numpy as np
import pandas as pd
import pytest

from napo.benchmarks.intervals import bootstrap, resampled, value
from napo.config.benchmarks import Ratio

SHARE = Ratio("hit", "one", 100)


def frame(hits):
    return pd.DataFrame({"hit": hits, "one": 1})


def test_the_interval_of_a_share_is_close_to_the_normal_one():
    low, high = bootstrap(frame([1] * 100 + [0] * 300), SHARE)
    half = 196 * math.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((25 - half, 25 + half), abs=0.6)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    items = frame([0, 1, 1, 0, 1] * 20)
    assert bootstrap(items, SHARE) == bootstrap(items, SHARE)
    assert not np.array_equal(resampled(items, SHARE, seed=0), resampled(items, SHARE, seed=1))


def test_questions_about_one_picture_are_drawn_together():
    once = frame([0, 1, 1, 0, 1] * 6)
    copied = pd.concat([once.assign(image=range(30))] * 9, ignore_index=True)
    assert bootstrap(copied, SHARE) == pytest.approx(bootstrap(once, SHARE))
    low, high = bootstrap(copied.drop(columns="image"), SHARE)
    assert high - low < 30 < np.subtract(*bootstrap(once, SHARE)[::-1])


def test_a_ratio_without_a_denominator_is_0_with_no_interval():
    items = pd.DataFrame({"hit": [0, 0], "one": [0, 0]})
    assert value(items, SHARE) == 0
    assert all(math.isnan(end) for end in bootstrap(items, SHARE))

"""Bootstrap intervals of ratios of sums."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo.benchmarks.intervals import bootstrap, percentile, resampled, value, weights
from napo.config.benchmarks import Ratio

SHARE = Ratio("hit", "one", 100)


def frame(hits):
    return pd.DataFrame({"hit": hits, "one": 1})


def test_each_bootstrap_sample_draws_as_many_items_as_there_are():
    drawn = weights(7, draws=50)
    assert drawn.shape == (50, 7) and set(drawn.sum(1)) == {7.0}


def test_the_interval_of_a_share_is_close_to_the_normal_one():
    low, high = bootstrap(frame([1] * 100 + [0] * 300), SHARE)
    half = 196 * math.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((25 - half, 25 + half), abs=0.6)


def test_an_interval_covers_the_true_share_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = bootstrap(frame(rng.random(80) < 0.4), SHARE, draws=400)
        covered += low <= 40 <= high
    assert 180 <= covered <= 198


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    items = frame([0, 1, 1, 0, 1] * 20)
    assert bootstrap(items, SHARE) == bootstrap(items, SHARE)
    assert not np.array_equal(resampled(items, SHARE, seed=0), resampled(items, SHARE, seed=1))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=30))
def test_the_interval_of_constant_ratios_is_a_point_and_of_others_holds_their_range(pairs):
    items = pd.DataFrame(pairs, columns=["top", "bottom"])
    low, high = bootstrap(items, Ratio("top", "bottom"), draws=200)
    ratios = items["top"] / items["bottom"]
    assert ratios.min() - 1e-9 <= low <= high <= ratios.max() + 1e-9
    items["top"] = 3 * items["bottom"]
    assert bootstrap(items, Ratio("top", "bottom"), draws=200) == pytest.approx((3, 3))


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


def test_samples_without_a_value_are_left_out():
    assert percentile(np.array([1.0, np.nan, 1.0, np.inf])) == (1.0, 1.0)

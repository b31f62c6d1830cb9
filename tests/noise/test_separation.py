"""Separation: AUROC, its intervals, and the sentences about them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napo.noise.separation import (
    auroc,
    describe,
    papers_reading,
    separation,
    separation_to_read,
    wilson,
)


def margin_frame(free, noisy, kind="language_biased", group="", equal=0):
    """A frame of margins; the first `equal` noise responses equal the chosen one."""
    values = [*free, *noisy]
    return pd.DataFrame(
        {
            "id": [f"{kind}-{number}" for number in range(len(values))],
            "kind": kind,
            "group": group,
            "label": ["biased"] * len(free) + ["unbiased"] * len(noisy),
            "equal_to_chosen": [False] * len(free) + [n < equal for n in range(len(noisy))],
            "margin_sum": values,
            "margin_mean": [-value for value in values],
        }
    )


def normal_frame(seed, free, noisy):
    rng = np.random.default_rng(seed)
    return margin_frame(rng.normal(1, 1, free), rng.normal(0, 1, noisy))


def spread(good, bad, n=60, seed=0):
    """Margins of which `good` separates and `bad` does not."""
    rng = np.random.default_rng(seed)
    frame = margin_frame(range(n), range(n))
    noise_free = (frame["label"] == "biased").to_numpy()
    frame[good] = rng.normal(0, 1, 2 * n) + 2.0 * noise_free
    frame[bad] = rng.normal(0, 1, 2 * n)
    return frame


# --- AUROC and intervals ----------------------------------------------------------------------

values = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)


@given(free=values, noisy=values)
@settings(max_examples=80, deadline=None)
def test_auroc_is_the_share_of_pairs_in_order_with_ties_half(free, noisy):
    pairs = np.mean([(a > b) + 0.5 * (a == b) for a in free for b in noisy])
    assert auroc(free, noisy) == pytest.approx(pairs)
    assert auroc(noisy, free) == pytest.approx(1 - pairs)


def test_the_bootstrap_interval_is_close_to_hanley_and_mcneils():
    frame = normal_frame(3, 150, 100)
    (row,) = separation(frame).query("equal_kept and statistic == 'sum'").to_dict("records")
    area = row["auroc"]
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + 149 * (q1 - area**2) + 99 * (q2 - area**2)
    expected = 2 * 1.96 * np.sqrt(variance / 150 / 100)
    assert row["auroc_low"] < area < row["auroc_high"]
    assert row["auroc_high"] - row["auroc_low"] == pytest.approx(expected, rel=0.15)


def test_wilsons_interval_is_the_textbooks():
    low, high = wilson(1, 10)
    assert (round(low, 4), round(high, 4)) == (0.0179, 0.4042)


# --- which responses count --------------------------------------------------------------------


def test_equal_responses_are_counted_and_the_auroc_is_given_without_them():
    frame = margin_frame([2.0] * 8, [0.0] * 6 + [3.0] * 6, equal=6)
    kept, without = separation(frame).query("statistic == 'sum'").to_dict("records")
    assert (kept["n"], kept["noise"], kept["equal"], kept["auroc"]) == (20, 12, 6, 0.5)
    assert (without["n"], without["noise"], without["equal"], without["auroc"]) == (14, 6, 0, 0.0)
    assert (kept["noise_low"], kept["noise_high"]) == wilson(12, 20)


def test_unsure_labels_and_questions_that_need_no_image_are_left_out():
    frame = margin_frame([2.0] * 6, [0.0] * 6, group="question")
    others = [frame.assign(label="unsure"), frame.assign(group="no-image")]
    made = separation(pd.concat([frame, *others], ignore_index=True))
    assert set(made["group"]) == {"all", "question"} and set(made["n"]) == {12}


# --- in words ---------------------------------------------------------------------------------


def test_the_words_give_the_share_of_noise_and_both_aurocs():
    frame = spread("margin_sum", "margin_mean")
    total, mean = separation(frame).query("equal_kept").to_dict("records")
    words = describe(separation(frame))
    assert words.startswith("Language-biased responses: 60 of 120 are noise (50 %, 95 % interval")
    for row, name in ((total, "summed"), (mean, "per-token")):
        interval = f"[{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
        assert f"{row['auroc']:.3f} {interval} for the {name} margin" in words


def all_noise_repeats():
    frame = spread("margin_sum", "margin_mean", n=12)
    return frame.assign(equal_to_chosen=frame["label"] == "unbiased")


def same_margins():
    frame = spread("margin_sum", "margin_mean")
    return frame.assign(margin_mean=frame["margin_sum"] * 2)


WORDS = {
    "the per-token margin wins": (
        spread("margin_mean", "margin_sum"),
        ["The per-token margin separates better", "as in the paper's Fig. 4",
         "The interval of the summed margin includes 0.5"],
    ),
    "the sum wins": (
        spread("margin_sum", "margin_mean"),
        ["The summed margin separates better", "but in the paper's Fig. 4 the per-token margin"],
    ),
    "undecided": (same_margins(), ["The interval does not show which margin separates better"]),
    "the wrong sign": (
        margin_frame(range(15), range(9, 24)), ["The summed margin is larger for noise"]
    ),
    "too few": (
        margin_frame([1.0] * 9, [0.0] * 2), ["Only 2 labelled noise: too few for an interval"]
    ),
    "no noise": (margin_frame([1.0] * 9, []), ["All are noise-free, so the AUROC is not defined"]),
    "only noise": (margin_frame([], [1.0] * 9), ["All are noise, so the AUROC is not defined"]),
    "nothing decided": (margin_frame([1.0], [2.0]).assign(label="unsure"), ["nothing to compare"]),
    "all noise equals the chosen response": (
        all_noise_repeats(), ["All noise equals the chosen response", "cannot show which margin"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_the_words_follow_the_numbers(case):
    frame, parts = WORDS[case]
    words = describe(separation(frame))
    assert not [part for part in parts if part not in words], words


@pytest.mark.parametrize("turned", [False, True])
def test_a_perfect_separation_has_no_interval_of_width_zero(turned):
    sides = [range(20, 40), range(12)]
    frame = margin_frame(*(sides[::-1] if turned else sides))
    made = separation(frame.assign(margin_mean=frame["margin_sum"]))
    assert set(made["auroc"]) == {1.0 - turned}
    assert made[["auroc_low", "auroc_high"]].isna().all(axis=None)
    assert ("The summed margin is larger for noise" in describe(made)) == turned


def test_the_table_to_read_has_a_row_for_each_kind_group_and_statistic():
    frame = pd.concat(
        [spread("margin_sum", "margin_mean"), margin_frame([], [], kind="vision_biased")]
    )
    facts = separation(frame)
    table = separation_to_read(facts)
    first = facts[(facts["statistic"] == "sum") & facts["equal_kept"]].iloc[0]
    row = table.loc[(first["kind"], "all", "sum")]
    assert row["AUROC"].startswith(f"{first['auroc']:.3f} [{first['auroc_low']:.3f}, ")
    assert row["median noise-free"] == f"{first['median_noise_free']:.2f}"
    assert len(table) == len(facts) / 2


@pytest.mark.parametrize(
    ("frame", "smaller", "better"),
    [
        (spread("margin_mean", "margin_sum"), "yes", "yes"),
        (spread("margin_sum", "margin_mean"), "not decided", "no"),
        (margin_frame(range(20), range(20)), "not decided", "not decided"),
        (margin_frame(range(20), range(40, 60)), "yes", "yes"),  # full separation, no interval
    ],
)
def test_the_papers_reading_holds_where_the_interval_leaves_chance(frame, smaller, better):
    table = papers_reading(separation(frame))
    assert table["holds"].to_dict() == {
        "language-biased: noise has the smaller per-token margin": smaller,
        "language-biased: the per-token margin separates better": better,
    }
    assert table["here"].iloc[0].startswith("AUROC ")


def test_without_labels_nothing_is_said_of_the_papers_reading():
    assert papers_reading(separation(margin_frame([], []))).empty

import numpy as np
import pytest
from study_fixtures import cell, outcome, steps

from napo.results import verdicts

RIGHT = np.array([100.0] * 60 + [0.0] * 40)  # 60 of 100 held-out pairs


def better_by(points):
    """RIGHT with so many more pairs right."""
    return np.where(np.arange(100) < 60 + points, 100.0, 0.0)


def groups_of(seeds=(0, 1, 2), **losses):
    return verdicts.grouped(
        {
            cell(loss, seed): outcome(accuracy=values)
            for loss, values in losses.items()
            for seed in seeds
        }
    )


def test_a_known_difference_is_found_with_an_interval_around_it():
    frame = verdicts.summary(groups_of(dpo=RIGHT, pair=better_by(10), mae=better_by(-10)))
    rows = frame.set_index("loss")
    assert rows.loc["dpo", "value"] == 60 and np.isnan(rows.loc["dpo", "difference"])
    assert rows.loc["pair", "difference"] == 10 and rows.loc["pair", "verdict"] == "better"
    # 10 of 100 rows differ, in every seed: the standard error is that of a share of 10 %.
    half = 1.96 * 100 * np.sqrt(0.1 * 0.9 / 100)
    assert rows.loc["pair", "difference_low"] == pytest.approx(10 - half, abs=1)
    assert rows.loc["pair", "difference_high"] == pytest.approx(10 + half, abs=1)
    assert rows.loc["mae", "verdict"] == "worse"


def test_pairing_takes_out_what_both_losses_share():
    frame = verdicts.summary(groups_of(dpo=RIGHT, napo=RIGHT)).set_index("loss")
    same = frame.loc["napo"]
    assert (same["difference_low"], same["difference_high"]) == (0, 0)
    assert same["verdict"] == "no change" and same["high"] - same["low"] > 15


def test_seeds_that_disagree_widen_the_interval():
    outcomes = {cell("dpo", seed): outcome(accuracy=RIGHT) for seed in range(3)}
    outcomes |= {
        cell("pair", seed): outcome(accuracy=better_by(points))
        for seed, points in enumerate((-5, 10, 25))
    }
    frame = verdicts.summary(verdicts.grouped(outcomes)).set_index("loss")
    assert frame.loc["pair", "difference"] == 10
    assert frame.loc["pair", "verdict"] == "not decided"


def test_few_seeds_widen_the_interval_as_students_t_does():
    # Three seeds without variance between items: the mean of 0, 3 and 6 has the variance 9 / 3.
    values = np.repeat([[0.0], [3.0], [6.0]], 200, axis=1)
    deviation = verdicts.resampled(values, draws=20000).std()
    assert deviation == pytest.approx(np.sqrt(3) * 4.303 / 1.960, rel=0.03)


def test_the_variance_of_single_values_is_that_of_an_analysis_of_variance():
    # Residuals of rows and columns are +-1 with (2 - 1) (2 - 1) degrees of freedom: 4 / 1 / 4.
    values = np.array([[3.0, 1.0], [5.0, 7.0]])
    assert verdicts.single_variance(values, np.isfinite(values), 4.0) == 1.0


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(80):
        seeds, items = rng.normal(0, 2, (5, 1)), rng.normal(0, 10, (1, 200))
        values = seeds + items + rng.choice([-100, 0, 100], p=[0.05, 0.9, 0.05], size=(5, 200))
        _, low, high = verdicts.estimate(values)
        held += low <= 0 <= high
    assert 72 <= held <= 80


def test_items_that_a_seed_lacks_do_not_count():
    values = np.array([[100.0, np.nan], [0.0, 100.0]])
    assert verdicts.estimate(values)[0] == pytest.approx(200 / 3)


def test_only_common_seeds_are_compared():
    outcomes = {cell("dpo", 0): outcome(accuracy=RIGHT), cell("dpo", 1): outcome(accuracy=RIGHT)}
    outcomes[cell("pair", 1)] = outcome(accuracy=better_by(5))
    (text,) = verdicts.sentences(verdicts.grouped(outcomes))
    assert "1 seed)" in text and "+5.0 [" in text


def test_every_kind_gets_the_cells_without_noise():
    outcomes = {cell("dpo", rate=0): outcome(accuracy=RIGHT)}
    outcomes[cell("dpo", kind="unbiased")] = outcome(accuracy=better_by(-20))
    frame = verdicts.summary(verdicts.grouped(outcomes))
    unbiased = frame[frame["kind"] == "unbiased"].set_index("rate")
    assert unbiased["value"].to_dict() == {0: 60, 0.4: 40}


@pytest.mark.parametrize(
    "low, high, better, word",
    [
        (0.1, 2.0, 1, "better"), (0.1, 2.0, -1, "worse"), (-2.0, -0.1, -1, "better"),
        (-0.5, 0.9, 1, "no change"), (-0.5, 1.1, 1, "not decided"), (0.1, 2.0, 0, ""),
    ],
)  # fmt: skip
def test_an_interval_decides_only_where_it_does_not_hold_zero(low, high, better, word):
    assert verdicts.verdict(low, high, better) == word


def test_the_sentences_come_from_the_numbers():
    groups = groups_of(**{"dpo": RIGHT, "q-0.5": RIGHT, "napo": RIGHT, "pair": better_by(-10)})
    (text,) = verdicts.sentences(groups)
    first, *parts = text.removesuffix(".").split(". ")
    assert first == "Held-out accuracy at 40 % flips (long, 3 seeds), in points against DPO"
    assert "No change: NaPO with q by Eq" in parts[1] and "Better" not in text
    assert parts[0].startswith("Worse: DPO with a weight for each pair −10.0 [−")
    assert "Adapting q by Eq. 12 against NaPO with q = 0.5: no change, +0.0 [0.0, 0.0]." in text


def test_less_memorised_noise_is_better():
    groups = verdicts.grouped(
        {
            cell(name, seed): outcome(accuracy=RIGHT, memorised=values)
            for name, values in {"dpo": [100] * 40, "mae": [100] * 10 + [0] * 30}.items()
            for seed in range(3)
        }
    )
    (text,) = verdicts.sentences(groups, "memorised")
    assert text.startswith("Memorised noise at 40 % flips") and "Better: MAE (q = 1) −75.0" in text
    low, high = text.split("[")[1].split("]")[0].replace("−", "-").split(",")
    assert -100 < float(low) < -75 < float(high) < -50


def test_noise_memorised_is_a_share_of_the_noisy_pairs_in_a_part_of_the_steps():
    runs = {
        cell("dpo", 0): steps([0] * 4, [1, 1, 2, 4]),
        cell("dpo", 1): steps([0] * 4, [1, 3, 4, 4]),
        cell("dpo", 0, rate=0): steps([0] * 4, [0] * 4),
    }
    parts = verdicts.by_part(runs, parts=2)
    assert parts["rate"].unique().tolist() == [0.4]
    assert parts["progress"].tolist() == [0.25, 0.75]
    assert parts["value"].tolist() == [37.5, 87.5]  # of 2 and 4, of 6 and 8 out of 8
    assert parts[["low", "high"]].to_numpy().tolist() == [[25, 50], [75, 100]]


def test_the_budget_and_the_range_of_q_are_said():
    runs = {cell("dpo", rate=0): steps([0.0, 2.0], [0, 0])}
    runs[cell("napo")] = steps([0, 0], [0, 0], q=[0.5, 0.49])
    assert verdicts.budget_sentences(runs) == [
        "Without noise, DPO ends at a mean psi_sum of 2.00 nats (long)."
    ]
    (text,) = verdicts.q_sentences(runs)
    assert "between 0.490 and 0.500" in text


def test_cells_that_have_not_run_are_named():
    assert verdicts.not_run([cell("pair", 1), cell("pair", 0)]) == [
        "Not run: pair at 40 % flips (long), seeds 0, 1"
    ]

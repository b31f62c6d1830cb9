"""The probability of noise: its fit, against another optimiser, and its calibration, by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from napo.errors import NapoError
from napo.noise import posterior

KINDS = ("language_biased", "vision_biased")


def margins(kind, sums, means, labels):
    frame = pd.DataFrame({"margin_sum": sums, "margin_mean": means, "label": labels})
    return frame.assign(kind=kind, id=[f"{kind}-{at}" for at in range(len(frame))], group="")


def drawn(count=60):
    """Margins of both kinds; noise is likelier where the sum is small."""
    rng, parts = np.random.default_rng(0), []
    for kind in KINDS:
        sums, means = rng.normal(4, 3, count), rng.normal(0.5, 0.4, count)
        noise = rng.random(count) < 1 / (1 + np.exp(sums - 3))
        parts.append(margins(kind, sums, means, np.where(noise, "unbiased", "biased")))
    return pd.concat(parts, ignore_index=True)


def test_the_fit_is_the_minimum_of_the_penalised_log_loss():
    frame = drawn()
    fitted = posterior.fit(frame)
    for kind in KINDS:
        part = frame[frame["kind"] == kind]
        features = part[["margin_sum", "margin_mean"]].to_numpy()
        scaled = (features - features.mean(axis=0)) / features.std(axis=0)
        noise = (part["label"] == "unbiased").to_numpy()

        def loss(values, scaled=scaled, noise=noise):
            scores = values[0] + scaled @ values[1:]
            return (
                np.logaddexp(0, np.where(noise, -scores, scores)).sum()
                + values[1:] @ values[1:] / 2
            )

        best = minimize(loss, np.zeros(3), options={"gtol": 1e-9}).x
        expected = 1 / (1 + np.exp(-(best[0] + scaled @ best[1:])))
        made = posterior.probabilities(part, fitted)
        assert made == pytest.approx(expected, abs=1e-4)
        assert list(fitted.loc[kind, ["labels", "noise"]]) == [60, noise.sum()]


def test_a_probability_is_the_logistic_function_of_both_margins():
    coefficients = pd.DataFrame(
        {"intercept": [0.0, 1.0], "margin_sum": [-2.0, 0.0], "margin_mean": [0.0, -1.0]},
        index=KINDS,
    )
    frame = pd.DataFrame(
        {
            "kind": [KINDS[0], KINDS[1], KINDS[0]],
            "margin_sum": [1.0, 9.0, 0.0],
            "margin_mean": [5.0, 1.0, 7.0],
        }
    )
    # sigmoid(-2), sigmoid(1 - 1), sigmoid(0)
    assert posterior.probabilities(frame, coefficients) == pytest.approx([0.1192029220, 0.5, 0.5])


def test_unsure_labels_count_for_nothing():
    frame = drawn()
    unsure = margins(KINDS[0], [99.0, -99.0], [1.0, 1.0], ["unsure", "unsure"])
    assert posterior.fit(pd.concat([frame, unsure])).equals(posterior.fit(frame))


def test_labels_that_agree_give_every_row_their_share():
    part = margins(KINDS[0], [1.0, 2.0, 3.0], [0.1, 0.2, 0.3], ["biased"] * 3)
    other = margins(KINDS[1], [1.0, 2.0], [0.1, 0.2], ["unbiased"] * 2)
    fitted = posterior.fit(pd.concat([part, other]))
    # (0 + 1/2) / (3 + 1) and (2 + 1/2) / (2 + 1)
    made = posterior.probabilities(pd.concat([part, other]), fitted)
    assert made == pytest.approx([0.125] * 3 + [2.5 / 3] * 2, abs=1e-5)


def test_margins_that_separate_the_labels_fully_give_finite_probabilities():
    sums = np.linspace(-5, 5, 20)
    parts = [margins(kind, sums, sums, np.where(sums < 0, "unbiased", "biased")) for kind in KINDS]
    fitted = posterior.fit(pd.concat(parts))
    made = posterior.probabilities(parts[0], fitted)
    assert 0 < made.min() < 0.1 and 0.9 < made.max() < 1 and (np.diff(made) < 0).all()


def test_a_kind_without_labels_has_no_fit_and_gives_no_columns():
    frame = drawn()
    fitted = posterior.fit(frame[frame["kind"] == KINDS[0]])
    assert list(fitted.index) == [KINDS[0]]
    assert set(posterior.reliability(frame, fitted)["kind"]) == {KINDS[0]}
    with pytest.raises(
        NapoError, match=r"No vision_biased response is labelled .*02_annotate_noise"
    ):
        posterior.noise_columns([], fitted)


# A fit under which the probability is sigmoid(margin_sum), and four probabilities: .2 .2 .8 .8
ONE = pd.DataFrame(
    {"intercept": 0.0, "margin_sum": 1.0, "margin_mean": 0.0, "labels": 10, "noise": 4}, index=KINDS
)
LOW, HIGH = np.log(0.2 / 0.8), np.log(0.8 / 0.2)


def test_the_brier_score_is_the_mean_squared_difference_to_the_truth():
    labels = ["biased", "unbiased", "unbiased", "unbiased"]
    table = posterior.scores(margins(KINDS[0], [LOW, LOW, HIGH, HIGH], [0.0] * 4, labels), ONE)
    row = table.loc[KINDS[0]]
    assert row["brier"] == pytest.approx((0.04 + 0.64 + 0.04 + 0.04) / 4)
    assert row["brier_constant"] == pytest.approx((0.16 + 3 * 0.36) / 4)  # 0.4 for every row
    assert (row["rows"], row["noise"]) == (4, 0.75)
    assert row["auroc"] == pytest.approx((0.5 + 1 + 1) / 3)  # .2 against .2 ties, .8 twice above
    assert list(table.index) == [KINDS[0]]


def test_a_bin_of_the_reliability_curve_has_the_share_of_noise_and_its_interval():
    labels = ["biased", "biased", "unbiased", "biased", "unbiased", "unbiased", "unsure"]
    frame = margins(KINDS[0], [LOW] * 3 + [HIGH] * 4, [0.0] * 7, labels)
    low, high = posterior.reliability(frame, ONE, bins=2).to_dict("records")
    assert (low["count"], high["count"]) == (3, 3)
    assert (low["predicted"], high["predicted"]) == pytest.approx((0.2, 0.8))
    assert (low["observed"], high["observed"]) == pytest.approx((1 / 3, 2 / 3))
    assert low["low"] < 1 / 3 < low["high"] and high["low"] < 2 / 3 < high["high"]


def test_equal_probabilities_are_one_bin():
    frame = margins(KINDS[0], [LOW] * 5, [0.0] * 5, ["biased"] * 4 + ["unbiased"])
    (row,) = posterior.reliability(frame, ONE).to_dict("records")
    assert row["count"] == 5 and row["observed"] == pytest.approx(0.2)


def test_columns_of_rows_hold_the_probabilities_in_their_order():
    scores = {"chosen": (-2.0, 5), "language_biased": (-3.0, 4), "vision_biased": (-6.0, 3)}
    columns = {f"{name}_logp": logp for name, (logp, _) in scores.items()}
    columns |= {f"{name}_tokens": tokens for name, (_, tokens) in scores.items()}
    row = {"chosen": "a cat .", "language_biased": "a dog .", "vision_biased": "no .", **columns}
    equal = row | {"language_biased": " a cat . "}  # margin 0
    made = posterior.noise_columns([row, equal], ONE)
    # sigmoid(-2 + 3), sigmoid(0); sigmoid(-2 + 6)
    assert made["language_biased_noise"] == pytest.approx([0.7310585786, 0.5])
    assert made["vision_biased_noise"] == pytest.approx([0.9820137900] * 2)

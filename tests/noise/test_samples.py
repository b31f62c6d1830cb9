"""The samples: the draw, labels by truth, shares of noise, and margins."""

import numpy as np
import pandas as pd
import pytest

from napo.errors import NapoError
from napo.noise.samples import oracle_labels, response_margins, sample, shares
from napo.noise.separation import wilson


def row(id, chosen="the cat is red .", lb="the cat is black .", vb="a red cat .", **more):
    scores = {"chosen": (-2.0, 5), "language_biased": (-8.0, 4), "vision_biased": (-6.0, 3)}
    columns = {f"{name}_logp": logp for name, (logp, _) in scores.items()}
    columns |= {f"{name}_tokens": tokens for name, (_, tokens) in scores.items()}
    texts = {"chosen": chosen, "language_biased": lb, "vision_biased": vb}
    return {"id": id, "question": "what colour is the cat ?", **texts, **columns, **more}


def labels(*rows):
    """Labels of one annotator from (id, kind, label, group)."""
    frame = pd.DataFrame(rows, columns=["id", "kind", "label", "group"])
    return frame.assign(annotator="ann", note="")


def test_a_sample_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    rows = [row(f"r{number}") for number in range(300)]
    first = sample(rows, 100, seed=1)
    assert first == sample(rows[::-1], 100, seed=1)
    assert first != sample(rows, 100, seed=2)
    assert len(set(first)) == 100


def test_more_samples_than_rows_is_an_error_that_names_both_numbers():
    with pytest.raises(NapoError, match="100 samples of 1 rows"):
        sample([row("a")], 100, 0)


def test_a_response_equal_to_the_chosen_one_is_noise_for_the_oracle():
    rows = [row("a"), row("b", lb=" the cat is red . ")]
    made = oracle_labels(rows, lambda row, kind: ("biased", "question"))
    assert list(made["id"]) == ["a", "a", "b", "b"]
    assert list(made["label"]) == ["biased", "biased", "unbiased", "biased"]
    assert set(made["annotator"]) == {"oracle"} and set(made["group"]) == {"question"}


def test_shares_of_noise_come_by_kind_and_group_with_their_intervals():
    made = shares(
        labels(
            *((f"q{number}", "language_biased", "unbiased" if number < 3 else "biased", "question")
              for number in range(10)),
            ("d", "language_biased", "unbiased", "description"),
            ("u", "language_biased", "unsure", "question"),
            ("n", "language_biased", "unbiased", "no-image"),
        )
    )  # fmt: skip
    questions = made.loc[("language_biased", "question")]
    assert list(questions[["labelled", "noise", "unsure", "share"]]) == [11, 3, 1, 0.3]
    assert (questions["low"], questions["high"]) == wilson(3, 10)
    assert made.loc[("language_biased", "all"), "noise"] == 4
    assert made.loc[("vision_biased", "all"), "labelled"] == 0


BOTH = (("a", "language_biased", "biased", ""), ("a", "vision_biased", "unbiased", ""))


def test_margins_are_chosen_minus_biased_summed_and_per_token():
    margins = response_margins([row("a")], labels(*BOTH))
    assert list(margins["margin_sum"]) == [6.0, 4.0]
    np.testing.assert_allclose(margins["margin_mean"], [-0.4 + 2.0, -0.4 + 2.0])
    assert list(margins["label"]) == ["biased", "unbiased"]


def test_the_margin_of_a_response_equal_to_the_chosen_one_is_exactly_zero():
    rows = [row("a", lb=" the cat is red . ", language_biased_logp=-2.0000001)]
    (margin,) = response_margins(rows, labels(BOTH[0])).to_dict("records")
    assert margin["equal_to_chosen"] and margin["margin_sum"] == margin["margin_mean"] == 0.0


def test_margins_and_oracle_labels_do_not_decode_images():
    datasets = pytest.importorskip("datasets")
    broken = {"bytes": b"no image", "path": None}
    rows = datasets.Dataset.from_list([row("a", image=broken), row("b", image=broken)])
    rows = rows.cast_column("image", datasets.Image())
    assert list(response_margins(rows, labels(BOTH[0]))["margin_sum"]) == [6.0]
    assert len(oracle_labels(rows, lambda row, kind: ("biased", "question"))) == 4


def test_labels_of_other_rows_are_refused_by_name():
    with pytest.raises(NapoError, match="not in the data \\(a\\)"):
        response_margins([row("b")], labels(BOTH[0]))

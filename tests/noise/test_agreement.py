"""Agreement of several annotators, their disagreements, and the consensus."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napo.noise.agreement import (
    agreement,
    agreements,
    consensus,
    disagreements,
    krippendorffs_alpha,
)
from napo.noise.labels import COLUMNS


def annotated(name, *values, kind="language_biased", note=""):
    rows = [(f"i{n}", kind, value, name, note, "") for n, value in enumerate(values) if value]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def together(*parts):
    return pd.concat(parts, ignore_index=True)


# --- Cohen's kappa and the table --------------------------------------------------------------


def test_agreement_is_cohens_kappa_over_the_items_that_both_decided():
    first = annotated("a", "biased", "biased", "unbiased", "unbiased", "unsure")
    second = annotated("b", "biased", "unbiased", "unbiased", "unbiased", "biased", "biased")
    made = agreement(together(first, second))
    assert (made["n"], made["unsure"], made["agreed"]) == (4, 1, 0.75)
    # Chance agreement: 1/2 * 1/4 + 1/2 * 3/4 = 1/2, so kappa = (3/4 - 1/2) / (1/2).
    assert made["kappa"] == pytest.approx(0.5)


def test_the_table_has_every_pair_and_all_people_without_the_truth():
    labels = together(
        annotated("ann", "biased", "unbiased", "biased"),
        annotated("ben", "biased", "unbiased", "unbiased"),
        annotated("cleo", "biased", "unbiased", "unsure"),
        annotated("oracle", "unbiased", "unbiased", "unbiased"),
        annotated("adjudicated", "biased", "unbiased", "biased"),
    )
    table = agreements(labels)
    assert list(table.index.get_level_values("between").unique()) == [
        "adjudicated, oracle", "ann, ben", "ann, cleo", "ann, oracle", "ben, cleo", "ben, oracle",
        "cleo, oracle", "all 3 people",
    ]  # fmt: skip
    everyone = table.loc[("all 3 people", "all")]
    assert everyone["n"] == 3 and everyone["agreed"] == pytest.approx(2 / 3)
    assert np.isnan(everyone["kappa"]) and everyone["unsure"] == 1
    three = labels[labels["annotator"].isin(["ann", "ben", "cleo"])]
    assert everyone["alpha"] == krippendorffs_alpha(three)
    empty = table.loc[("ann, ben", "vision_biased")]
    assert empty["n"] == 0 and empty[["agreed", "kappa", "alpha"]].isna().all()


def test_the_table_of_one_annotator_is_empty():
    assert agreements(annotated("ann", "biased")).empty
    assert agreements(annotated("ann")).empty


# --- Krippendorff's alpha ---------------------------------------------------------------------


def test_alpha_of_krippendorffs_own_example_with_missing_data():
    # Krippendorff (2011), section C: four observers, twelve units, nominal alpha 0.743.
    observers = {
        "A": (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
        "B": (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
        "C": (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
        "D": (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
    }
    labels = together(*(annotated(name, *values) for name, values in observers.items()))
    assert krippendorffs_alpha(labels) == pytest.approx(0.743, abs=5e-4)


def alpha_by_pairs(labels):
    """Alpha from its meaning: disagreement within items over disagreement of any two judgements."""
    judged = labels[labels["label"] != "unsure"]
    items = [list(part["label"]) for _, part in judged.groupby(["id", "kind"])]
    items = [values for values in items if len(values) > 1]
    every = [value for values in items for value in values]
    within = sum(
        (a != b) / (len(values) - 1) for values in items for a, b in permutations(values, 2)
    ) / max(1, len(every))
    chance = np.mean([a != b for a, b in permutations(every, 2)]) if every else 0
    return 1 - within / chance if chance else float("nan")


judgements = st.sampled_from(["biased", "unbiased", "unsure", None])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(judgements, min_size=8, max_size=8), min_size=2, max_size=4))
def test_alpha_is_within_over_chance_disagreement_in_any_order(table):
    labels = together(*(annotated(f"p{n}", *values) for n, values in enumerate(table)))
    alpha = krippendorffs_alpha(labels)
    assert alpha == pytest.approx(alpha_by_pairs(labels), nan_ok=True)
    shuffled = labels.sample(frac=1, random_state=1)
    assert krippendorffs_alpha(shuffled) == pytest.approx(alpha, nan_ok=True)


# --- disagreements and consensus --------------------------------------------------------------


def test_disagreements_give_each_label_and_unsure_does_not_disagree():
    labels = together(
        annotated("ben", "biased", "unbiased", "unsure"),
        annotated("ann", "unbiased", "unbiased", "biased", note="grey"),
        annotated("oracle", "biased", "biased", "biased"),
    )
    assert disagreements(labels).to_dict("records") == [
        {"id": "i0", "kind": "language_biased", "said": "ann: unbiased (grey); ben: biased"}
    ]


def test_consensus_is_the_shared_label_then_the_adjudicated_one():
    labels = together(
        annotated("ann", "biased", "biased", "unsure", "unsure", "biased"),
        annotated("ben", "biased", "unbiased", "unbiased", "unsure", "unbiased"),
        annotated("adjudicated", "", "unbiased"),
    )
    agreed = consensus(labels)
    assert set(agreed["annotator"]) == {"adjudicated"}
    assert {row["id"]: (row["label"], row["note"]) for row in agreed.to_dict("records")} == {
        "i0": ("biased", "agreed by ann, ben"),
        "i1": ("unbiased", ""),
        "i2": ("unbiased", "only by ben"),
        "i3": ("unsure", "agreed by ann, ben"),
    }


@pytest.mark.parametrize(("bens", "label"), [("biased", "biased"), ("unbiased", "unbiased")])
def test_a_decision_counts_only_while_people_disagree(bens, label):
    decision = annotated("adjudicated", "unbiased", note="agreed by ann, ben")
    labels = together(annotated("ann", "biased"), annotated("ben", bens), decision)
    assert list(consensus(labels)["label"]) == [label]

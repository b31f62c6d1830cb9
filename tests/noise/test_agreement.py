"""Several annotators: agreement, disagreements, and what holds after adjudication."""

import unicodedata
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napo import lab, stages
from napo.errors import NapoError
from napo.noise.agreement import (
    agreement,
    agreements,
    consensus,
    disagreements,
    krippendorffs_alpha,
)
from napo.noise.labels import COLUMNS, read_labels, remove_label, store_label

VALUES = ("biased", "unbiased", "unsure")


def annotated(name, *values, kind="language_biased", note=""):
    rows = [(f"i{at}", kind, value, name, note, "") for at, value in enumerate(values) if value]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def together(*parts):
    return pd.concat(parts, ignore_index=True)


# --- Cohen's kappa ----------------------------------------------------------------------------


def test_agreement_is_cohens_kappa_over_what_both_decided():
    first = annotated("a", "biased", "biased", "unbiased", "unbiased", "unsure")
    second = annotated("b", "biased", "unbiased", "unbiased", "unbiased", "biased", "biased")
    made = agreement(first, second).set_index("kind")
    assert made.loc["all", "n"] == 4 and made.loc["all", "unsure"] == 1
    assert made.loc["all", "agreed"] == 0.75
    # Chance agreement: 1/2 * 1/4 + 1/2 * 3/4 = 1/2, so kappa = (3/4 - 1/2) / (1/2).
    assert made.loc["all", "kappa"] == pytest.approx(0.5)
    assert made.loc["vision_biased", "n"] == 0 and np.isnan(made.loc["vision_biased", "kappa"])


def test_kappa_is_missing_where_both_only_ever_used_one_label():
    same = annotated("a", "biased", "biased")
    made = agreement(same, same).set_index("kind")
    assert made.loc["all", "agreed"] == 1.0 and np.isnan(made.loc["all", "kappa"])


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


def by_pairs(labels):
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


people_say = st.lists(
    st.lists(st.sampled_from([*VALUES, None]), min_size=8, max_size=8), min_size=2, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(people_say)
def test_alpha_is_within_over_chance_disagreement_whatever_the_order(table):
    labels = together(*(annotated(f"p{at}", *values) for at, values in enumerate(table)))
    alpha = krippendorffs_alpha(labels)
    assert alpha == pytest.approx(by_pairs(labels), nan_ok=True)
    turned = labels.sample(frac=1, random_state=1)
    assert krippendorffs_alpha(turned) == pytest.approx(alpha, nan_ok=True)


def test_alpha_is_one_when_all_agree_and_missing_when_nothing_can_disagree():
    values = ("biased", "unbiased", "biased")
    same = together(annotated("a", *values), annotated("b", *values))
    assert krippendorffs_alpha(same) == 1.0
    one_label = together(annotated("a", "biased"), annotated("b", "biased"))
    assert np.isnan(krippendorffs_alpha(one_label))
    assert np.isnan(krippendorffs_alpha(annotated("a", *values)))


def test_the_table_has_every_pair_and_all_people_and_leaves_truth_out_of_them():
    labels = together(
        annotated("ann", "biased", "unbiased", "biased"),
        annotated("ben", "biased", "unbiased", "unbiased"),
        annotated("cleo", "biased", "unbiased", "unsure"),
        annotated("oracle", "unbiased", "unbiased", "unbiased"),
        annotated("adjudicated", "biased", "unbiased", "biased"),
    )
    made = agreements(labels)
    between = list(made.index.get_level_values("between").unique())
    assert "adjudicated, oracle" in between and "ann, oracle" in between
    assert "adjudicated, ann" not in between
    everyone = made.loc[("all 3 people", "all")]
    assert everyone["n"] == 3 and everyone["agreed"] == pytest.approx(2 / 3)
    assert np.isnan(everyone["kappa"]) and everyone["unsure"] == 1
    three = labels[labels["annotator"].isin(["ann", "ben", "cleo"])]
    assert everyone["alpha"] == krippendorffs_alpha(three)


def test_the_table_of_one_annotator_is_empty():
    assert agreements(annotated("ann", "biased")).empty
    assert agreements(annotated("ann")).empty


# --- disagreements and consensus --------------------------------------------------------------


def test_disagreements_name_who_said_what_and_unsure_is_no_opposition():
    labels = together(
        annotated("ben", "biased", "unbiased", "unsure"),
        annotated("ann", "unbiased", "unbiased", "biased", note="grey"),
        annotated("oracle", "biased", "biased", "biased"),
    )
    made = disagreements(labels)
    assert made.to_dict("records") == [
        {"id": "i0", "kind": "language_biased", "said": "ann: unbiased (grey); ben: biased"}
    ]


def test_consensus_is_what_deciders_share_then_what_was_adjudicated_and_never_a_guess():
    labels = together(
        annotated("ann", "biased", "biased", "unsure", "unsure", "biased"),
        annotated("ben", "biased", "unbiased", "unbiased", "unsure", "unbiased"),
        annotated("adjudicated", "", "unbiased"),
    )
    made = consensus(labels)
    found = {row["id"]: (row["label"], row["note"]) for row in made.to_dict("records")}
    assert found == {
        "i0": ("biased", "agreed by ann, ben"),
        "i1": ("unbiased", ""),
        "i2": ("unbiased", "only by ben"),
        "i3": ("unsure", "agreed by ann, ben"),
    }
    assert set(made["annotator"]) == {"adjudicated"}


def test_a_decision_rests_while_people_agree_and_holds_again_when_they_do_not():
    decided = annotated("adjudicated", "unbiased", note="agreed by ann, ben")
    agreed = together(annotated("ann", "biased"), annotated("ben", "biased"), decided)
    assert list(consensus(agreed)["label"]) == ["biased"]
    later = together(annotated("ann", "biased"), annotated("ben", "unbiased"), decided)
    assert list(consensus(later)["label"]) == ["unbiased"]


# --- the stage ---------------------------------------------------------------------------------


@pytest.fixture
def labelled(unlabelled):
    """Two people who disagree about two responses."""
    for name in ("ann", "ben"):
        tool = lab.label(unlabelled, name)
        for at in range(len(tool.items)):
            tool.label("unbiased" if name == "ben" and at in (1, 4) else "biased")
    return unlabelled


def test_adjudication_asks_only_what_is_disputed_and_ends_in_a_whole_set(labelled):
    with pytest.raises(NapoError, match="2 responses are still disputed"):
        stages.annotate(labelled, "adjudicated")
    tool = lab.label(labelled, "adjudicated")
    whole = lab.label(labelled, "ann").items
    assert tool.items == [whole[1], whole[4]]
    assert "ann: biased; ben: unbiased" in tool.remark.value
    tool.label("unbiased")
    tool.label("unsure")
    labels = stages.annotate(labelled, "adjudicated")
    found = dict(zip(zip(labels["id"], labels["kind"], strict=True), labels["label"], strict=True))
    expected = {item: "biased" for item in whole}
    assert found == {**expected, whole[1]: "unbiased", whole[4]: "unsure"}
    assert list(labels["id"].unique()) == list(dict.fromkeys(id for id, _ in whole))


def test_reading_what_was_settled_leaves_an_adjudicators_decisions_on_the_disk(labelled):
    folder = labelled.workspace.annotations
    tool = lab.adjudicate(labelled)
    tool.note.value = "only by ann"  # as the notes of what needed no decision begin
    tool.label("unbiased")
    tool.label("biased")
    decisions = (folder / "adjudicated.csv").read_bytes()
    (folder / "ben.csv").rename(folder / "aside")
    with pytest.raises(NapoError, match="only ann has labelled"):
        stages.annotate(labelled, "adjudicated")
    (folder / "aside").rename(folder / "ben.csv")
    labels = stages.annotate(labelled, "adjudicated").set_index(["id", "kind"])
    assert labels.loc[tool.items[0], "note"] == "only by ann"
    assert (folder / "adjudicated.csv").read_bytes() == decisions
    assert len(read_labels(folder / "adjudicated.csv")) == 2
    counts = stages.labelled(labelled)
    assert counts.loc["adjudicated", "labelled"] == counts.loc["ann", "labelled"] == len(labels)


def test_a_changed_mind_of_a_person_reaches_the_adjudicated_set(labelled):
    tool = lab.adjudicate(labelled)
    tool.label("unbiased")
    tool.label("unbiased")
    first, third = tool.items[0], lab.label(labelled, "ann").items[2]
    path = labelled.workspace.annotations / "ben.csv"
    for item, value in ((first, "biased"), (third, "unbiased")):
        label = {"id": item[0], "kind": item[1], "label": value, "annotator": "ben"}
        store_label(path, label)
    with pytest.raises(NapoError, match="1 response is still disputed"):
        stages.annotate(labelled, "adjudicated")
    again = lab.adjudicate(labelled)
    assert again.items[again._at] == third
    again.label("biased")
    labels = stages.annotate(labelled, "adjudicated").set_index(["id", "kind"])
    assert labels.loc[first, "label"] == "biased"


def test_without_a_name_it_is_whoever_labelled_and_of_several_what_was_settled(labelled):
    made = labelled.profile.model_copy(
        update={"annotation": labelled.profile.annotation.model_copy(update={"annotator": ""})}
    )
    asked = type(labelled)(made, labelled.workspace)
    with pytest.raises(NapoError, match="2 responses are still disputed"):
        stages.annotate(asked)
    folder = labelled.workspace.annotations
    (folder / "ben.csv").unlink()
    (folder / "adjudicated.csv").unlink(missing_ok=True)
    assert set(stages.annotate(asked)["annotator"]) == {"ann"}
    (folder / "ann.csv").unlink()
    with pytest.raises(NapoError, match=r"Nobody has labelled the samples yet; label them in Jup"):
        stages.annotate(asked)


def test_a_copy_of_somebodys_labels_does_not_count_twice(labelled):
    folder = labelled.workspace.annotations
    copy = folder / "ann (copy).csv"
    copy.write_bytes((folder / "ann.csv").read_bytes())
    try:
        with pytest.raises(NapoError, match=r"ann \(copy\)\.csv holds labels of ann; keep each"):
            stages.labelled(labelled)
    finally:
        copy.unlink()
    assert stages.labelled(labelled).loc["ann", "labelled"]


def test_remarks_are_text(labelled):
    path = labelled.workspace.annotations / "ann.csv"
    item = lab.label(labelled, "ann").items[1]
    label = {"id": item[0], "kind": item[1], "label": "biased", "annotator": "ann"}
    store_label(path, {**label, "note": "<script>alert(1)</script>"})
    assert "<script" not in lab.adjudicate(labelled).remark.value


def test_one_person_or_no_dispute_is_a_sentence(labelled):
    folder = labelled.workspace.annotations
    (folder / "ben.csv").write_bytes((folder / "ann.csv").read_bytes().replace(b",ann,", b",ben,"))
    with pytest.raises(NapoError, match="Nothing is disputed"):
        lab.adjudicate(labelled)
    (folder / "ben.csv").unlink()
    with pytest.raises(NapoError, match="only ann has labelled"):
        lab.label(labelled, "adjudicated")
    (folder / "ann.csv").unlink()
    with pytest.raises(NapoError, match="nobody has labelled"):
        stages.annotate(labelled, "adjudicated")


@pytest.mark.parametrize("name", ["../ann", "a/b", ".hidden", "a\nb", "", "oracle"])
def test_a_name_that_cannot_be_a_file_or_is_reserved_is_refused(labelled, name):
    before = sorted(path.name for path in labelled.workspace.annotations.iterdir())
    with pytest.raises(NapoError, match="name"):
        lab.label(labelled, name)
    assert sorted(path.name for path in labelled.workspace.annotations.iterdir()) == before


@pytest.mark.parametrize("name", ["José", "Jose\u0301", "प्रिया", "محمّد", "李雷", "d'Arc"])
def test_names_are_of_any_script_and_however_a_keyboard_composes_them(labelled, name):
    if "'" in name:
        with pytest.raises(NapoError, match="give a name of letters"):
            lab.label(labelled, name)
        return
    lab.label(labelled, name).label("unsure")
    assert len(stages.annotate(labelled, name)) == 1
    assert unicodedata.normalize("NFC", name) in stages.labelled(labelled).index


def test_who_has_labelled_how_many_is_counted(labelled):
    remove_label(
        labelled.workspace.annotations / "ann.csv",
        *lab.label(labelled, "ann").items[0],
        "ann",
    )
    made = stages.labelled(labelled)
    total = 2 * labelled.profile.annotation.samples
    assert list(made.loc["ann"]) == [total - 1, total, total - 1, 0, 0]
    assert list(made.loc["ben"]) == [total, total, total - 2, 2, 0]


def test_a_person_without_labels_is_told_how_to_give_them(labelled):
    with pytest.raises(NapoError, match="cleo has labelled nothing yet; label the samples in Jup"):
        stages.annotate(labelled, "cleo")


@pytest.mark.parametrize("name", ["Oracle", "ADJUDICATED", " ann", "ann ", "Ann  Lee", "a" * 300])
def test_a_name_that_some_disk_takes_for_another_is_refused(labelled, name):
    with pytest.raises(NapoError, match=r"reserved|give a name of letters"):
        lab.label(labelled, name)


def test_peoples_labels_are_told_apart_by_what_was_asked_where_the_truth_is_known(labelled):
    truth = stages.annotate(labelled, "oracle").set_index(["id", "kind"])["group"]
    anns = stages.annotate(labelled, "ann").set_index(["id", "kind"])["group"]
    assert (anns == truth.loc[anns.index]).all() and anns.nunique() > 1
    stored = read_labels(labelled.workspace.annotations / "ann.csv")
    assert set(stored["group"]) == {""}  # a person was not asked


def test_margins_need_no_batch_run_of_02_and_refuse_what_is_disputed(labelled):
    stages.score_reference(labelled)
    margins = stages.margins(labelled, "ann")
    assert len(margins) == 2 * labelled.profile.annotation.samples
    assert set(margins["group"]) == set(stages.annotate(labelled, "ann")["group"])
    with pytest.raises(NapoError, match="still disputed"):
        stages.margins(labelled, "adjudicated")


def test_rows_that_the_world_did_not_make_have_no_truth(labelled):
    data = labelled.profile.data.model_copy(update={"source": "elsewhere"})
    profile = labelled.profile.model_copy(update={"data": data})
    strange = type(labelled)(profile, labelled.workspace)
    assert stages.all_margins(strange) is None

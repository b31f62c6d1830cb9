"""The labels' stage: adjudication, names, groups by truth, and margins."""

import pytest
from matplotlib.figure import Figure

from napo import lab, stages
from napo.errors import NapoError
from napo.noise.labels import read_labels, remove_label
from napo.results import figures
from napo.stages.labels import figures4, margin_inputs, outdated_figure


@pytest.fixture
def labelled(unlabelled):
    """Two people who disagree about two responses."""
    for name in ("ann", "ben"):
        tool = lab.label(unlabelled, name)
        for index in range(len(tool.items)):
            tool.label("unbiased" if name == "ben" and index in (1, 4) else "biased")
    return unlabelled


def with_settings(session, section, **changes):
    """The session with other values in one section of its profile."""
    changed = getattr(session.profile, section).model_copy(update=changes)
    return type(session)(session.profile.model_copy(update={section: changed}), session.workspace)


def test_adjudication_shows_only_disputed_items_and_completes_the_set(labelled):
    with pytest.raises(NapoError, match="2 responses are still disputed"):
        stages.annotate(labelled, "adjudicated")
    tool = lab.label(labelled, "adjudicated")
    items = lab.label(labelled, "ann").items
    assert tool.items == [items[1], items[4]]
    assert "ann: biased; ben: unbiased" in tool.remark.value
    tool.label("unbiased")
    tool.label("unsure")
    labels = stages.annotate(labelled, "adjudicated")
    answers = labels.set_index(["id", "kind"])["label"].to_dict()
    assert answers == {item: "biased" for item in items} | {
        items[1]: "unbiased",
        items[4]: "unsure",
    }
    assert list(labels["id"].unique()) == list(dict.fromkeys(id for id, _ in items))


def test_adjudication_needs_two_people_and_a_dispute(labelled):
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


def test_without_a_name_the_only_person_counts_and_of_several_the_consensus(labelled):
    with pytest.raises(NapoError, match=r'cleo has labelled .*`interactive` .*"cleo"'):
        stages.annotate(labelled, "cleo")
    nameless = with_settings(labelled, "annotation", annotator="")
    folder = labelled.workspace.annotations
    with pytest.raises(NapoError, match="2 responses are still disputed"):
        stages.annotate(nameless)
    (folder / "ben.csv").unlink()
    assert set(stages.annotate(nameless)["annotator"]) == {"ann"}
    (folder / "ann.csv").unlink()
    with pytest.raises(NapoError, match="Nobody has labelled the samples yet; label them in Jup"):
        stages.annotate(nameless)


@pytest.mark.parametrize("name", ["../ann", "", "oracle"])
def test_a_name_that_is_refused_leaves_no_file(labelled, name):
    before = sorted(labelled.workspace.annotations.iterdir())
    with pytest.raises(NapoError, match="name"):
        lab.label(labelled, name)
    assert sorted(labelled.workspace.annotations.iterdir()) == before


@pytest.mark.kind("A. A command is refused every time or never")
@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("ann (copy)", None, "annotations/ann (copy).csv holds labels of ann; keep"),
        ("dan", "id,kind,label,annotator,group,note\n1,foo,biased,dan,,\n", "Unknown kind 'foo'"),
        ("Oracle", "id,kind,label,annotator,group,note\n", "oracle is reserved"),
    ],
)
def test_a_file_without_usable_labels_is_left_out_and_named(labelled, name, text, problem, result):
    counts = stages.labelled(labelled)
    folder = labelled.workspace.annotations
    (folder / f"{name}.csv").write_text(text or (folder / "ann.csv").read_text())
    (folder / "._ann.csv").write_bytes(b"\0")  # a Mac's file beside ann.csv
    assert stages.labelled(labelled).equals(counts)
    drawn, problems = figures4(labelled)
    assert set(drawn) == {"fig4", "fig4-by-ann", "fig4-by-ben"}
    (sentence,) = problems
    result(sentence)
    assert sentence.startswith(f"Fig. 4 by {name}: not drawn. ") and problem in sentence
    assert str(labelled.workspace.root) not in sentence  # the report shows it


@pytest.mark.kind("A. A report may only say what its runs had")
def test_a_figure_by_another_annotator_is_outdated_without_the_reference_too(labelled):
    frame, inputs = stages.labelled(labelled), margin_inputs(labelled)  # there is no reference
    for name in ("fig4", "fig4-column"):
        figures.save(Figure(), labelled.workspace.figures, name, frame, inputs)
    assert not outdated_figure(labelled, "fig4", "")
    assert outdated_figure(with_settings(labelled, "annotation", annotator="ann"), "fig4", "")


def test_the_labels_of_each_annotator_are_counted(labelled):
    path = labelled.workspace.annotations / "ann.csv"
    remove_label(path, *lab.label(labelled, "ann").items[0], "ann")
    counts, total = stages.labelled(labelled), 2 * labelled.profile.annotation.samples
    assert list(counts.loc["ann"]) == [total - 1, total, total - 1, 0, 0]
    assert list(counts.loc["ben"]) == [total, total, total - 2, 2, 0]


def test_truth_labels_the_samples_in_their_order_and_only_writes_changes(labelled):
    path = labelled.workspace.annotations / "oracle.csv"
    labels = stages.annotate(labelled, "oracle")
    assert list(labels["id"].unique()) == stages.samples(labelled)[1]
    before = path.stat().st_mtime_ns
    stages.annotate(labelled, "oracle")
    assert path.stat().st_mtime_ns == before


def test_peoples_labels_get_the_groups_of_the_truth(labelled):
    truth = stages.annotate(labelled, "oracle").set_index(["id", "kind"])["group"]
    anns = stages.annotate(labelled, "ann").set_index(["id", "kind"])["group"]
    assert (anns == truth.loc[anns.index]).all() and anns.nunique() > 1
    stored = read_labels(labelled.workspace.annotations / "ann.csv")
    assert set(stored["group"]) == {""}


def test_rows_that_the_world_did_not_make_have_no_truth(labelled):
    elsewhere = with_settings(labelled, "data", source="elsewhere")
    assert stages.all_margins(elsewhere) is None

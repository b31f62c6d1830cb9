"""A variant whose q comes from labels: what it needs, and that only its runs depend on them."""

import pytest

from napo import stages
from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.noise import posterior
from napo.noise.labels import ORACLE, labels_file, read_labels, store_label
from napo.stages import plan
from napo.stages.posterior import labels_fingerprint, rows_with_noise
from napo.training.records import read_records


@pytest.fixture(scope="module")
def scored(built_smoke):
    stages.score_reference(built_smoke)
    return built_smoke


@pytest.fixture
def labelled(scored, unlabelled):
    stages.annotate(unlabelled)
    return unlabelled


def test_without_labels_its_training_names_the_notebook(scored, unlabelled):
    folder = unlabelled.workspace.annotations
    for path in folder.glob("*.json"):
        path.unlink()
    with pytest.raises(
        NapoError, match=r"annotations is missing .* run notebooks/02_annotate_nois"
    ):
        stages.train(unlabelled, "A1-posterior", 0)


def test_rows_get_the_probability_of_the_fit_to_the_labels(labelled):
    rows = rows_with_noise(labelled)
    fitted = posterior.fit(stages.margins(labelled))
    expected = posterior.noise_columns(stages.biased_rows(labelled), fitted)
    for name, values in expected.items():
        assert list(rows[name]) == pytest.approx(values)
        assert len(set(values)) > 1
    assert rows[0]["image"].size  # images are still decoded


def test_only_its_runs_depend_on_the_labels(labelled):
    def settings(variant):
        folders = dict(plan.folders(labelled, [(variant, 0, "full")]))
        return folders[labelled.workspace.run(variant, 0, "full")]

    before, others = settings("A1-posterior"), settings("A1")
    path = labels_file(labelled.workspace.annotations, ORACLE)
    label = read_labels(path).iloc[0].to_dict()
    store_label(path, label | {"note": "looked twice"})
    assert settings("A1-posterior") == before
    other = {"biased": "unbiased", "unbiased": "biased"}[label["label"]]
    store_label(path, label | {"label": other})
    after = settings("A1-posterior")
    assert after["objective"].pop("labels") != before["objective"].pop("labels")
    assert after == before and settings("A1") == others


def test_its_pairs_are_trained_with_the_q_of_their_probability(labelled):
    folder = stages.train(labelled, "A1-posterior", 0)
    records = read_records(folder)
    rows = rows_with_noise(labelled)
    for name in ("language_biased", "vision_biased"):
        noise = dict(zip(rows["id"], rows[f"{name}_noise"], strict=True))
        expected = [max(0.01, noise[id]) for id in records["id"]]
        assert records[f"{name}_q"].to_numpy() == pytest.approx(expected, rel=1e-6)
    assert "rejected_q" not in records
    settings = dict(plan.folders(labelled, [("A1-posterior", 0, "full")]))[folder]
    assert settings["objective"]["labels"] == labels_fingerprint(labelled)
    assert not list(plan.refusals(labelled, [("A1-posterior", 0, "full")]))


def test_it_waits_until_people_have_labelled_and_holds_up_no_other(labelled, unlabelled):
    annotation = labelled.profile.annotation
    names = ("dpo", "A1-posterior")
    for annotator, variants in ((ORACLE, list(names)), ("kim", ["dpo"])):
        changed = {
            "annotation": annotation.model_copy(update={"annotator": annotator}),
            "variants": names,
            "seeds": "7",  # not evaluated by another test
        }
        opened = type(labelled)(labelled.profile.model_copy(update=changed), labelled.workspace)
        assert plan.variants_of(opened, "", "", baselines=False) == variants
    assert VARIANTS["A1-posterior"].baseline

"""A plan knows what was made with other settings, whatever Snakemake or the files' times say."""

import shutil

import pytest

from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.results.collect import collect
from napo.stages import plan
from napo.stages.session import Session
from napo.workspace.folders import Workspace
from napo.workspace.manifests import begin, finish, read_manifest

VARIANTS = ("dpo", "A1")
RUNS = {"runs/dpo/seed-0", "runs/A1/seed-0"}
RESULTS = {"results/dpo/seed-0", "results/A1/seed-0"}
kind = pytest.mark.kind("A. A report may only say what its runs had")


def session(root, changes=""):
    """A session of the smoke profile with these changes, in its folders."""
    path = root.parent / "changed.yaml"
    path.write_text(f"extends: smoke\nname: smoke\n{changes}")
    return Session(load_profile(str(path)), Workspace(root, "smoke"))


@pytest.fixture
def root(tmp_path):
    """A workspace whose folders are sealed with the settings of the smoke profile."""
    made = session(tmp_path / "work")
    for folder, settings in plan.folders(made, [(name, 0, "full") for name in VARIANTS]):
        folder.mkdir(parents=True)
        (folder / "content").write_text(folder.name)
        if folder.parent.parent.name == "runs":
            shutil.copytree(load_profile("smoke").model.location, folder / "model")
        begin(folder, settings)
        finish(folder)
    return tmp_path / "work"


def refused(root, changes=""):
    opened = session(root, changes)
    return {
        folder.relative_to(opened.workspace.data).as_posix(): words
        for folder, words in plan.refusals(opened, plan.runs_of(opened, VARIANTS))
    }


def test_folders_made_with_the_profile_are_accepted_again_and_as_a_copy(root, tmp_path):
    assert refused(root) == {}
    assert refused(shutil.copytree(root, tmp_path / "elsewhere")) == {}


@kind
@pytest.mark.parametrize(
    ("changes", "folders"),
    [
        ("training: {learning_rate: 0.01}", RUNS | RESULTS),
        ("training: {epochs: 9}", RUNS | RESULTS),
        ("training: {beta: 0.2}", RUNS | RESULTS),
        ("training: {q_rule: released}", RUNS | RESULTS),
        ("masks: {image: drop}", {"rows"} | RUNS | RESULTS),
        ("masks: {decoding: {max_new_tokens: 7}}", {"rows"} | RUNS | RESULTS),
        ("evaluation: {decoding: {max_new_tokens: 7}}", {"results/base"} | RESULTS),
        ("evaluation: {sizes: {mmhal: 3}}", {"benchmarks", "results/base"} | RESULTS),
        ("annotation: {samples: 3}", {"annotations"}),
        ("data: {seed: 9}", {"source", "rows"} | RUNS | RESULTS),
        ("model: {dtype: bfloat16}", {"source", "rows", "results/base"} | RUNS | RESULTS),
        ("model: {system: Be brief.}", {"source", "rows", "results/base"} | RUNS | RESULTS),
        ("threads: 2", {"source", "rows", "results/base"} | RUNS | RESULTS),
        # No result depends on these.
        ("seeds: '0,1,2'", set()),
        ("variants: [dpo, A1, A2]", set()),
        ("launch: {processes: 2}", set()),
        ("title: Ours", set()),
        ("world: {make_rows: 'mine:rows'}", {"source"}),
        ("world: {judge_by_truth: 'mine:judge'}", {"results/base"} | RESULTS),
    ],
)
def test_a_change_of_a_setting_refuses_the_folders_that_depend_on_it(
    root, changes, folders, result
):
    sentences = refused(root, changes)
    result(next(iter(sentences.values()), "nothing depends on it"))
    assert set(sentences) == folders


@kind
def test_results_know_their_runs_settings_after_runs_and_rows_were_deleted(root, result):
    for name in ("rows", "runs", "source", "benchmarks"):
        shutil.rmtree(root / "data" / "smoke" / name)
    assert refused(root) == {}
    sentences = refused(root, "training: {learning_rate: 0.01}")
    result(sentences["results/A1/seed-0"])
    assert set(sentences) == RESULTS
    assert sentences["results/A1/seed-0"] == "run.learning_rate: 0.0003 there, 0.01 now"
    assert "run.data.image: 'mask_token' there" in next(
        iter(refused(root, "masks: {image: drop}").values())
    )


@kind
def test_a_run_that_was_trained_again_refuses_its_old_result(root):
    weights = root / "data" / "smoke" / "runs" / "A1" / "seed-0"
    (weights / "model" / "config.json").write_text("{}")
    assert refused(root) == {"results/A1/seed-0": "evaluated differ"}


@kind
def test_the_refusal_names_all_folders_the_setting_and_both_values(root, result):
    with pytest.raises(NapoError) as error:
        opened = session(root, "training: {beta: 0.2}")
        plan.check_settings(opened, plan.runs_of(opened, VARIANTS))
    result(error.value)
    assert "runs/dpo/seed-0 was made with other settings (beta: 0.1 there, 0.2 now)" in str(
        error.value
    )
    assert "data/smoke/results/A1/seed-0" in str(error.value)


@kind
@pytest.mark.parametrize(
    "changes",
    ["training: {learning_rate: 0.01}", "masks: {image: drop}", "evaluation: {batch_size: 7}"],
)
def test_results_with_different_settings_cannot_share_a_table(root, changes, result):
    other = session(root, changes)
    folder = other.workspace.result("A1/seed-0")
    settings = dict(plan.folders(other, [("A1", 0, "full")]))[folder]
    shutil.rmtree(folder)
    begin(folder, settings)
    finish(folder)
    with pytest.raises(NapoError, match=r"settings of .* and A1/seed-0 differ") as error:
        collect(other.workspace.results, VARIANTS, [0])
    result(error.value)


def test_the_settings_that_results_share_are_in_sections(root):
    results = collect(session(root).workspace.results, VARIANTS, [0])
    assert set(results.settings) == {"evaluation", "training", "rows", "dpo's", "A1's"}
    assert results.settings["training"]["learning_rate"] == 0.0003
    assert results.settings["rows"]["image"] == "mask_token"
    assert "seed" in read_manifest(results.folder / "A1/seed-0")["settings"]["run"]
    assert "objective" not in results.settings["training"]


@kind
def test_a_report_is_made_again_when_a_result_is_still_to_come(root):
    opened = session(root)
    folder = opened.workspace.tables
    begin(folder, {})
    finish(folder)
    again = plan.outdated(opened, [*VARIANTS, "A2"])
    assert "data/smoke/tables/manifest.json" in again

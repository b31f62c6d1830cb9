"""A plan knows what was made with other settings, whatever Snakemake or the files' times say."""

import json
import shutil
from dataclasses import replace

import pytest

from napo.config.contrast import Contrast
from napo.config.profile import load_profile
from napo.config.variants import VARIANTS as ENTRIES
from napo.errors import NapoError
from napo.results.collect import collect
from napo.stages import plan, report
from napo.stages.report import captions
from napo.stages.session import Session
from napo.workspace.files import write_json
from napo.workspace.folders import Workspace
from napo.workspace.manifests import begin, finish, read_manifest, read_settings, require, sealed

VARIANTS = ("dpo", "A1")
RUNS = {"runs/dpo/seed-0", "runs/A1/seed-0"}
RESULTS = {"results/dpo/seed-0", "results/A1/seed-0"}
ALL = {"source", "benchmarks", "rows", "annotations", "results/base"} | RUNS | RESULTS
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
        if run := settings.get("run", settings if folder.parent.parent.name == "runs" else {}):
            run["q_batch"] = 16  # the plan does not know the number of processes
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
        ("launch: {processes: 2}", RUNS | RESULTS),  # q averages a micro-batch of all processes
        ("masks: {image: drop}", {"rows", "annotations"} | RUNS | RESULTS),
        ("masks: {decoding: {max_new_tokens: 7}}", {"rows", "annotations"} | RUNS | RESULTS),
        ("evaluation: {decoding: {max_new_tokens: 7}}", {"results/base"} | RESULTS),
        ("evaluation: {sizes: {mmhal: 3}}", {"benchmarks", "results/base"} | RESULTS),
        ("annotation: {samples: 3}", {"annotations"}),
        ("data: {seed: 9}", {"source", "rows", "annotations"} | RUNS | RESULTS),
        (
            "model: {dtype: bfloat16}",
            ALL - {"benchmarks"},
        ),
        (
            "model: {system: Be brief.}",
            ALL - {"benchmarks"},
        ),
        ("threads: 2", ALL - {"benchmarks"}),
        # No result depends on these.
        ("seeds: '0,1,2'", set()),
        ("variants: [dpo, A1, A2]", set()),
        ("launch: {processes: 1}", set()),
        ("training: {lora_r: 9, lora_learning_rate: 1}", set()),  # full runs use neither
        ("evaluation: {source: elsewhere}", set()),
        ("data: {expected: 9}", set()),
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
    other_rows = refused(root, "masks: {image: drop}")
    assert set(other_rows) == {"annotations"} | RESULTS
    assert "run.data.image: 'mask_token' there" in other_rows["results/A1/seed-0"]


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
def test_a_variant_without_training_has_a_result_and_no_run(root, monkeypatch):
    opened = session(root, "variants: [vcd, dpo]")
    runs = plan.runs_of(opened, ["vcd"], "0,1,2")
    assert runs == [("vcd", 0, "full")]
    folder, settings = list(plan.folders(opened, runs))[-1]
    assert folder == opened.workspace.result("vcd")
    assert not [path for path, _ in plan.folders(opened, runs) if "runs" in path.parts]
    begin(folder, settings)
    finish(folder)
    assert ("vcd", 0, "full") in plan.existing_runs(opened)
    results = collect(opened.workspace.results, ["vcd", "dpo"], [0])
    assert results.runs == {"base": ["base"], "vcd": ["vcd"], "dpo": ["dpo/seed-0"]}
    assert results.settings["vcd's"]["contrast"]["alpha"] == 1.0
    assert not report.departures(opened, results)
    monkeypatch.setitem(ENTRIES, "vcd", replace(ENTRIES["vcd"], contrast=Contrast(alpha=0.5)))
    assert dict(plan.refusals(opened, runs)) == {folder: "run.contrast.alpha: 1.0 there, 0.5 now"}
    assert report.departures(opened, results) == {"vcd's.contrast.alpha": (1.0, 0.5)}


@kind
def test_a_report_is_made_again_when_a_result_is_still_to_come(root):
    opened = session(root)
    folder = opened.workspace.tables
    begin(folder, {})
    finish(folder)
    again = plan.outdated(opened, [*VARIANTS, "A2"])
    assert "data/smoke/tables/manifest.json" in again


@kind
def test_advice_to_delete_annotations_names_the_labels_of_people(root, result):
    (root / "data" / "smoke" / "annotations" / "kim.csv").write_text("id\n")
    opened = session(root, "masks: {image: drop}")
    with pytest.raises(NapoError, match=r"move kim\.csv elsewhere to keep them") as error:
        plan.check_settings(opened, [])
    result(error.value)


@kind
def test_a_lora_run_depends_on_its_own_learning_rate_only(root):
    opened = session(root)
    runs = [("A1", 0, "lora")]
    folder = opened.workspace.run("A1", 0, "lora")
    begin(folder, dict(plan.folders(opened, runs))[folder])
    finish(folder)
    for change, count in (("learning_rate", 0), ("lora_learning_rate", 1)):
        other = session(root, f"training: {{{change}: 0.01}}")
        assert len([*plan.refusals(other, runs)]) == count


@kind
@pytest.mark.parametrize(
    ("deleted", "made_again"),
    [
        (["results/A1/seed-0/content"], ["results/A1/seed-0"]),
        (["runs/A1/seed-0/model/config.json"], []),  # its result is whole
        (["runs/A1/seed-0/model/config.json", "results/A1/seed-0"], ["runs/A1/seed-0"]),
    ],
)
def test_a_folder_that_lacks_a_file_is_planned_where_it_is_needed(root, deleted, made_again):
    data = root / "data" / "smoke"
    for name in deleted:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    opened = session(root)
    folders = plan.incomplete(opened, VARIANTS)
    assert [folder.relative_to(data).as_posix() for folder in folders] == made_again
    planned = plan.outdated(opened, VARIANTS) if made_again else []
    assert {f"data/smoke/{name}/manifest.json" for name in made_again} <= set(planned)


@kind
def test_the_result_of_a_run_does_not_pass_as_the_base(root, result):
    results = session(root).workspace.results
    shutil.rmtree(results / "base")
    shutil.copytree(results / "A1" / "seed-0", results / "base")
    with pytest.raises(NapoError, match="base holds the result of A1/seed-0") as error:
        collect(results, VARIANTS, [0])
    result(error.value)


@kind
def test_settings_that_were_edited_in_one_of_two_files_are_refused(root, result):
    manifest = root / "data" / "smoke" / "results" / "A1" / "seed-0" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.0003", "0.0009"))
    with pytest.raises(NapoError, match="hold different settings") as error:
        require(manifest.parent)
    result(error.value)


@kind
@pytest.mark.parametrize("key", ["data", "objective", "tune"])
def test_a_result_without_a_part_of_its_runs_settings_is_one_sentence(root, key, result):
    folder = root / "data" / "smoke" / "results" / "A1" / "seed-0"
    for name in ("manifest.json", "settings.json"):
        content = json.loads((folder / name).read_text())
        del content.get("settings", content)["run"][key]
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(NapoError, match="holds the result of an unknown run") as error:
        collect(folder.parents[1], VARIANTS, [0])
    result(error.value)


@kind
def test_a_report_shows_the_curves_of_the_runs_that_were_evaluated_only(root):
    opened = session(root)
    results = collect(opened.workspace.results, VARIANTS, [0])
    run = opened.workspace.run("A1", 0, "full")
    inputs = {"A1/seed-0": {"files": sealed(run), "settings": read_settings(run)}}
    record = opened.workspace.figures / "training-A1-full.provenance.json"
    write_json(record, {"files": {}, "inputs": inputs})
    assert "training-A1-full" in captions(opened, results, "", "full")
    shutil.rmtree(run)  # weights may be deleted; the record says whose curves they are
    assert "training-A1-full" in captions(opened, results, "", "full")
    inputs["A1/seed-0"]["settings"]["learning_rate"] = 0.0009
    write_json(record, {"files": {}, "inputs": inputs})
    assert "training-A1-full" not in captions(opened, results, "", "full")


@kind
@pytest.mark.parametrize("same", [True, False])
def test_a_report_shows_the_fig4_of_the_rows_that_its_runs_had_only(root, monkeypatch, same):
    opened = session(root)
    results = collect(opened.workspace.results, VARIANTS, [0])
    monkeypatch.setattr(report, "figures4", lambda _: ({"fig4": "oracle"}, []))
    monkeypatch.setattr(report, "outdated_figure", lambda *_: False)  # rows here and figure agree
    rows = sealed(opened.workspace.rows) if same else "0123456789abcdef"
    record = opened.workspace.figures / "fig4.provenance.json"
    write_json(record, {"files": {}, "inputs": {"rows": rows}})
    assert ("fig4" in captions(opened, results, "", "full")) is same

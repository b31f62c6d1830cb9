"""The real notebooks, executed at smoke scale by the real pipeline."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from napo.data.rows import shards
from napo.workspace.files import read_json
from napo.workspace.folders import Workspace
from napo.workspace.manifests import require

ROOT = Path(__file__).parent.parent
MARK = "marker-of-a-secret"
SECRETS = dict.fromkeys(("NAPO_TOKEN", "OPENAI_API_KEY", "HF_TOKEN"), MARK)
PAPERMILL = str(Path(sys.executable).parent / "papermill")
pytestmark = pytest.mark.notebooks


def pipeline(folder, *flags):
    smoke = ("--profile", "smoke", "--workspace", str(folder))
    return subprocess.run(
        [sys.executable, "-m", "napo", "reproduce", *smoke, *flags],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **SECRETS},
    )


def papermill(name, folder, *parameters):
    return subprocess.run(
        [PAPERMILL, str(ROOT / "notebooks" / f"{name}.ipynb"), str(folder / "out.ipynb"),
         "--no-progress-bar", "-p", "profile", "smoke", *parameters],
        capture_output=True,
        text=True,
        cwd=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One workspace in which the whole smoke pipeline has run."""
    folder = tmp_path_factory.mktemp("workspace")
    done = pipeline(folder, "--cores", "1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Workspace(folder, "smoke"), done.stdout + done.stderr


def test_the_pipeline_tells_its_progress_with_an_estimate(made):
    _, said = made
    assert "left" in said and "[1/" in said and "report.html" in said


def test_every_stage_is_sealed_and_whole(made):
    workspace, _ = made
    folders = [workspace.source, workspace.benchmarks, workspace.rows]
    folders += [workspace.run("A1", 0, "full"), workspace.result("base"), workspace.tables]
    for folder in folders:
        assert require(folder)["files"], folder


def test_every_folder_and_figure_says_what_made_it(made):
    workspace, _ = made
    beside = [path.parent / "provenance.json" for path in workspace.data.rglob("manifest.json")]
    for path in (*beside, workspace.figures / "fig3.provenance.json"):
        told = read_json(path)
        assert told["profile"]["name"] == "smoke" and told["code"]["version"], path
    assert read_json(workspace.run("A1", 0, "full") / "provenance.json")["parameters"] == {
        "variant": "A1", "seeds": "0", "tune": "full",
    }  # fmt: skip


def test_tokens_of_the_environment_are_in_no_file_and_no_line_of_it(made):
    workspace, said = made
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert len(files) > 100 and workspace.notebooks / "07_results.ipynb" in files
    assert [path for path in files if MARK.encode() in path.read_bytes()] == []
    assert MARK not in said


def test_the_rows_hold_both_biased_responses_and_the_references_scores(made):
    workspace, _ = made
    rows = pq.read_table(shards(workspace.rows))
    assert rows.num_rows == 64
    assert {"language_biased", "vision_biased", "truth"} <= set(rows.column_names)
    current = read_json(workspace.data / "reference" / "current.json")["folder"]
    scores = pq.read_table(shards(workspace.reference(current))).to_pandas()
    assert set(scores["id"]) == set(rows["id"].to_pylist())
    assert (scores["vision_biased_logp"] < 0).all() and (scores["chosen_tokens"] > 0).all()


def test_the_labels_are_in_the_csv_that_a_persons_go_to(made):
    workspace, _ = made
    labels = pd.read_csv(workspace.annotations / "oracle.csv", keep_default_na=False)
    assert list(labels.columns[:4]) == ["id", "kind", "label", "annotator"]
    assert set(labels["kind"]) == {"language_biased", "vision_biased"}
    assert set(labels["label"]) <= {"biased", "unbiased", "unsure"}


@pytest.mark.parametrize("name", ["fig3", "fig4"])
def test_the_figures_come_as_pdf_svg_png_and_csv(made, name):
    workspace, _ = made
    for suffix in ("pdf", "svg", "png", "csv"):
        assert (workspace.figures / f"{name}.{suffix}").stat().st_size > 500


def test_training_leaves_a_model_and_a_record_of_every_example(made):
    from napo.training.records import read_records

    workspace, _ = made
    folder = workspace.run("A1", 0, "full")
    assert (folder / "model" / "model.safetensors").is_file()
    records = read_records(folder)
    assert records["id"].nunique() == 64
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("checkpoint-*"))


def test_each_run_has_a_result_for_each_benchmark(made):
    workspace, _ = made
    for run in ("base", "dpo/seed-0", "A1/seed-0"):
        for benchmark in ("vlind", "object_halbench", "amber", "mmhal"):
            result = read_json(workspace.result(run) / f"{benchmark}.json")
            assert result["run"] == run


def test_the_tables_are_there_in_three_formats_with_a_report(made):
    workspace, _ = made
    for number in (1, 2, 3, 4):
        for suffix in ("csv", "md", "tex"):
            assert (workspace.tables / f"table{number}.{suffix}").stat().st_size > 100
    second = (workspace.tables / "table2.md").read_text()
    assert "not run" in second  # smoke trains A1 and dpo only
    report = (workspace.tables / "report.html").read_text()
    assert "Table 4" in report and 'src="http' not in report


def test_a_second_run_finds_everything_done_at_once(made):
    workspace, _ = made
    before = {p: p.stat().st_mtime for p in workspace.data.rglob("manifest.json")}
    started = time.monotonic()
    done = pipeline(workspace.root)
    assert done.returncode == 0 and time.monotonic() - started < 15
    assert done.stdout.startswith("Nothing to do, every result and figure is there: ")
    assert {p: p.stat().st_mtime for p in workspace.data.rglob("manifest.json")} == before


def test_deleted_figures_and_results_come_again_and_deleted_weights_are_not_trained_again(made):
    workspace, _ = made
    weights = workspace.run("A1", 0, "full")
    result = workspace.result("base") / "amber.json"
    gone = [workspace.figures / "fig3-column.pdf", workspace.tables / "report.html", result]
    before = [path.read_bytes() for path in gone]
    for path in gone:
        path.unlink()
    aside = weights.with_name("aside")
    weights.rename(aside)
    try:
        done = pipeline(workspace.root)
        assert done.returncode == 0 and "[3/3]" in done.stdout, done.stdout + done.stderr
        assert f"{result} is missing; it is made again." in done.stdout
        assert "loss_curves done" in done.stdout and "report done" in done.stdout
    finally:
        aside.rename(weights)
    assert [path.read_bytes() for path in gone] == before


def test_baselines_are_trained_on_demand_and_then_belong_to_the_plan(made):
    workspace, _ = made
    assert not workspace.result("ropo/seed-0").exists()
    before = (workspace.tables / "table1.csv").read_bytes()
    done = pipeline(workspace.root, "--baselines")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    extra = pd.read_csv(workspace.tables / "extra.csv").set_index("variant")
    assert extra.loc["ropo", "ran"].all() and not extra.loc["ipo", "ran"].any()
    assert (workspace.tables / "table1.csv").read_bytes() == before
    sealed = (workspace.tables / "manifest.json").stat().st_mtime
    assert pipeline(workspace.root).returncode == 0
    assert (workspace.tables / "manifest.json").stat().st_mtime == sealed


def test_a_notebook_runs_alone_from_any_folder(made, tmp_path):
    workspace, _ = made
    figure = workspace.figures / "fig4.png"
    before = figure.read_bytes()
    where = ("-p", "workspace", str(workspace.root), "-p", "annotator", "oracle")
    done = papermill("04_margin_distributions", tmp_path, *where)
    assert done.returncode == 0, done.stderr[-2000:]
    assert figure.with_name("fig4-by-oracle.png").read_bytes() == before


def test_any_checkpoint_can_be_evaluated_by_its_path(made, tmp_path):
    workspace, _ = made
    model = workspace.run("A1", 0, "full") / "model"
    done = papermill(
        "06_evaluate", tmp_path, "-p", "workspace", str(workspace.root), "-p", "model", str(model)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = workspace.results.glob("model-model-*")
    named = read_json(result / "vlind.json")["metrics"]
    assert named == read_json(workspace.result("A1/seed-0") / "vlind.json")["metrics"]


def test_lora_trains_from_the_same_notebook(made, tmp_path):
    workspace, _ = made
    where = ("-p", "workspace", str(workspace.root))
    done = papermill("05_train", tmp_path, *where, "-p", "variant", "A1", "-p", "tune", "lora")
    assert done.returncode == 0, done.stderr[-2000:]
    run = workspace.run("A1", 0, "lora")
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


BAD = {
    "an unknown parameter": ("03_loss_curves", ["-p", "profil", "x"], "Unknown parameter 'profil'"),
    "an unknown profile": ("03_loss_curves", ["-p", "profile", "tinny"], "Did you mean 'tiny'"),
    "an unknown variant": ("05_train", ["-p", "variant", "A9"], "Unknown variant 'A9'"),
    "bad seeds": ("05_train", ["-p", "seeds", "x"], "seeds is 'x'"),
    "a missing input": ("04_margin_distributions", [], "run notebooks/01_build_biased_data.ipynb"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_and_writes_nothing(case, tmp_path):
    name, parameters, sentence = BAD[case]
    work = tmp_path / "work"
    work.mkdir()
    done = papermill(name, tmp_path, "-p", "workspace", str(work), *parameters)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert not list(work.rglob("*.json"))

"""The real notebooks, executed at smoke scale by the real pipeline."""

import os
import random
import shutil
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


def test_every_stage_is_sealed_with_what_made_it_and_the_terminal_shows_the_progress(made):
    workspace, said = made
    assert "left" in said and "[1/" in said and "report.html" in said
    assert "score by the reference: 64/64 rows" in said  # in parts of 24
    folders = [workspace.source, workspace.benchmarks, workspace.rows, workspace.tables]
    folders += [workspace.run("A1", 0, "full"), workspace.result("base")]
    for folder in folders:
        assert require(folder)["files"], folder
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


def test_training_leaves_a_model_and_a_record_of_every_example(made):
    from napo.training.records import read_records

    workspace, _ = made
    folder = workspace.run("A1", 0, "full")
    assert (folder / "model" / "model.safetensors").is_file()
    assert read_records(folder)["id"].nunique() == 64
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("checkpoint-*"))


def test_figures_results_tables_and_report_are_there(made):
    workspace, _ = made
    drawn = [workspace.figures / f"{name}.{suffix}" for name in ("fig3", "fig4")
             for suffix in ("pdf", "svg", "png", "csv")]  # fmt: skip
    tables = [workspace.tables / f"table{number}.{suffix}" for number in (1, 2, 3, 4)
              for suffix in ("csv", "md", "tex")]  # fmt: skip
    assert all(path.stat().st_size > 100 for path in (*drawn, *tables))
    for run in ("base", "dpo/seed-0", "A1/seed-0"):
        for benchmark in ("vlind", "object_halbench", "amber", "mmhal"):
            assert read_json(workspace.result(run) / f"{benchmark}.json")["run"] == run
    text = (workspace.tables / "table2.md").read_text()
    assert "Not run here: A2" in text  # smoke trains A1 and dpo only
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


@pytest.fixture
def copy(made, tmp_path):
    """The workspace copied as people copy: other times of files, no memory of Snakemake."""
    rng, root = random.Random(0), tmp_path / "copy"
    ignored = shutil.ignore_patterns(".snakemake", "checkpoints")
    shutil.copytree(made[0].root, root, ignore=ignored)
    for path in root.rglob("*"):
        os.utime(path, (time.time() - rng.uniform(0, 1e6),) * 2)
    return Workspace(root, "smoke")


def changed(folder, text):
    """The path of a profile that changes the smoke profile."""
    path = folder / "changed.yaml"
    path.write_text(f"extends: smoke\nname: smoke\n{text}")
    return str(path)


@pytest.mark.kind("A. It plans what has to be done")
def test_in_a_copied_workspace_nothing_is_planned(copy):
    (copy.notebooks / "05_train-A1.ipynb").unlink()  # as if notebooks had run by hand
    done = pipeline(copy.root, "-n")
    assert done.stdout.startswith("Nothing to do"), done.stdout + done.stderr


@pytest.mark.kind("A. A report may only say what its runs had")
@pytest.mark.parametrize("change", ["training: {learning_rate: 0.01}", "masks: {image: drop}"])
def test_a_changed_profile_is_refused_every_time_and_writes_no_report(copy, tmp_path, change):
    report = (copy.tables / "report.html").read_bytes()
    profile = changed(tmp_path, change)
    for _ in range(2):
        done = pipeline(copy.root, "--profile", profile)
        assert done.returncode == 1 and "made with other settings" in done.stderr
    assert (copy.tables / "report.html").read_bytes() == report


@pytest.mark.kind("A. A report may only say what its runs had")
def test_notebook_07_says_what_its_runs_had_under_a_changed_profile(copy, tmp_path):
    profile = changed(tmp_path, "training: {beta: 0.25, epochs: 9}\nmasks: {image: drop}")
    where = ("-p", "workspace", str(copy.root), "-p", "profile", profile)
    done = papermill("07_results", tmp_path, *where)
    assert done.returncode == 0, done.stderr[-2000:]
    report = (copy.tables / "report.html").read_text()
    for text in (
        "training.beta is 0.1 in the runs and 0.25 in the profile",
        "rows.image is &#39;mask_token&#39; in the runs and &#39;drop&#39; in the profile",
        "<dt>training.beta</dt><dd>0.1</dd>",
        "<dt>rows.image</dt><dd>mask_token</dd>",
    ):
        assert text in report, text
    assert "training.epochs is 1 in the runs" in (copy.tables / "table1.md").read_text()
    assert "training.beta" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.kind("A. Without labels everything else is made")
def test_a_persons_labels_get_a_figure_of_their_own_and_without_labels_all_else_is_made(
    copy, tmp_path
):
    truth = pd.read_csv(copy.annotations / "oracle.csv", dtype=str, keep_default_na=False)
    truth.assign(annotator="007").to_csv(copy.annotations / "007.csv", index=False)
    own = (copy.figures / "fig4.png").read_bytes()
    done = pipeline(copy.root)
    assert done.returncode == 0 and "[3/3] report done" in done.stdout, done.stdout + done.stderr
    assert (copy.figures / "fig4-by-007.png").read_bytes() == own
    assert (copy.figures / "fig4.png").read_bytes() == own
    assert "labelled by 007" in (copy.tables / "report.html").read_text()
    for path in copy.annotations.glob("*.csv"):
        path.unlink()
    by_hand = changed(tmp_path, "annotation: {annotator: ''}")
    done = pipeline(copy.root, "--profile", by_hand)
    assert done.returncode == 0 and "[1/1] report done" in done.stdout, done.stdout + done.stderr
    assert "Fig. 4: not labelled. Nobody has labelled the samples yet" in done.stdout
    report = (copy.tables / "report.html").read_text()
    assert "Fig. 4: not labelled. Nobody has labelled the samples yet; label them" in report
    assert "labelled by" not in report and "Table 4" in report


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


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        (("-p", "profil", "x"), "Unknown parameter 'profil'"),
        (("-p", "annotator", "ann"), "run notebooks/01_build_biased_data.ipynb"),
    ],
)
def test_bad_input_gets_one_sentence_and_writes_nothing(tmp_path, parameter, sentence):
    work = tmp_path / "work"
    work.mkdir()
    done = papermill("04_margin_distributions", tmp_path, "-p", "workspace", str(work), *parameter)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert not list(work.rglob("*.json"))


def test_the_noise_study_goes_on_after_a_kill_and_ends_with_figures_and_sentences(made):
    workspace, _ = made
    study = workspace.study
    command = [sys.executable, "-m", "napo", "study", "--profile", "smoke",
               "--workspace", str(workspace.root), "--cores", "1"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not list(study.glob("long/*/*/seed-0/manifest.json")):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    before = {path: path.stat().st_mtime for path in study.glob("long/*/*/seed-0/manifest.json")}
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The study has 4 cells, " in done.stdout and "sentences.md" in done.stdout
    assert {path: path.stat().st_mtime for path in before} == before
    cells = pd.read_csv(study / "summary" / "cells.csv")
    assert sorted(cells["loss"]) == ["dpo", "dpo", "napo", "napo"]
    sentences = (study / "summary" / "sentences.md").read_text().splitlines()
    compared = [text.split(" at 40 % flips")[0] for text in sentences if " at 40 % flips" in text]
    assert compared == ["- Held-out accuracy", "- Memorised noise"]
    for name in ("study-accuracy", "study-differences", "study-memorised"):
        assert (workspace.figures / f"{name}.pdf").stat().st_size > 1000
    again = subprocess.run(command, capture_output=True, text=True)
    assert "Nothing to do" in again.stdout

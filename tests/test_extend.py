"""The recipes of docs/extend.md, run as they stand there from a folder outside the checkout."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
RECIPES = dict(
    section.split("\n", 1)
    for section in (ROOT / "docs" / "extend.md").read_text().split("\n## ")[1:]
)
FENCE = re.compile(r"```\w+\n# (\S+)\n(.*?)```", re.S)
# What the notebooks do, without their starts.
STAGES = """
from napo import stages
from napo.results.tables import extra_table, table
from napo.stages.session import open_session
session = open_session("mine.yaml", ".")
stages.make_rows(session)
stages.make_benchmarks(session)
stages.build_rows(session)
stages.score_reference(session)
for variant in ("base", *session.profile.variants):
    if variant != "base":
        stages.train(session, variant, 0)
    stages.evaluate(session, variant, 0)
results = stages.all_results(session)
table(1, results).write(session.workspace.root)
extra_table(results).write(session.workspace.root)
margins = stages.margins(session)
margins.to_csv("margins.csv")
"""


def written(folder, recipe):
    """Write the files of a recipe."""
    for name, text in FENCE.findall(RECIPES[recipe]):
        (folder / name).write_text(text)


def run(folder, *call):
    done = subprocess.run(
        [sys.executable, *call],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "A world"])
def test_a_recipe_is_at_most_fifteen_lines(recipe):
    for name, text in FENCE.findall(RECIPES[recipe]):
        lines = [line for line in text.splitlines() if line.strip()]
        assert not name.endswith(".py") or len(lines) <= 15, name


def test_a_loss_and_its_variant_train_and_stand_in_the_extra_table(tmp_path):
    written(tmp_path, "A loss")
    run(tmp_path, "-c", STAGES)
    extra = pd.read_csv(tmp_path / "extra.csv").set_index("variant")
    assert extra.loc["hinge", "ran"].all()
    assert set(extra.loc["hinge", "row"]) == {"Hinge on the rejected pair"}


@pytest.mark.long
def test_a_variant_trains_with_its_own_terms(tmp_path):
    written(tmp_path, "A variant")
    run(tmp_path, "-c", STAGES)
    extra = pd.read_csv(tmp_path / "extra.csv").set_index("variant")
    assert extra.loc["A1-alpha-5", "ran"].all()
    settings = json.loads((tmp_path / "data/mine/runs/A1-alpha-5/seed-0/settings.json").read_text())
    assert [term["alpha"] for term in settings["objective"]["terms"]][1:] == [2.5, 0.05]


@pytest.mark.long
def test_a_benchmark_is_scored_and_stands_in_the_table_it_names(tmp_path):
    import numpy as np

    from napo.icon_world import scenes

    written(tmp_path, "A benchmark")
    folder = tmp_path / "data" / "mine" / "benchmarks" / "mine"
    folder.mkdir(parents=True)
    rng, items = np.random.default_rng(0), []
    for number in range(12):
        scene = scenes.sample(rng)
        scenes.draw(scene, rng).save(folder / f"{number}.png")
        thing = scene.things[0]
        asked = f"What color is the {thing.kind}?"
        items.append({"image": f"{number}.png", "question": asked, "answer": thing.color})
    (folder / "items.json").write_text(json.dumps(items))
    run(tmp_path, "-c", STAGES)
    result = json.loads((tmp_path / "data/mine/results/base/mine.json").read_text())
    accuracy = result["metrics"]["accuracy"]
    assert accuracy["n"] == 12 and 0 < accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    frame = pd.read_csv(tmp_path / "table1.csv")
    ours = frame[(frame["metric"] == "Mine Acc") & (frame["variant"] == "dpo")]
    assert len(ours) and ours["published"].isna().all() and ours["ours"].notna().any()


@pytest.mark.long
def test_a_model_family_is_built_scored_trained_and_evaluated(tmp_path):
    import torch
    from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

    from napo.icon_world.base_model import CHECKPOINT
    from napo.models.load import load_model

    written(tmp_path, "A model family")
    icon, processor = load_model(CHECKPOINT, device="cpu")
    torch.manual_seed(0)
    config = VipLlavaConfig(
        vision_config=icon.config.vision_config,
        text_config=icon.config.text_config,
        image_token_index=icon.config.image_token_id,
        vision_feature_layers=[-1, -2],
        image_seq_length=16,
    )
    VipLlavaForConditionalGeneration(config).save_pretrained(tmp_path / "vipllava")
    processor.save_pretrained(tmp_path / "vipllava")
    run(tmp_path, "-c", STAGES)
    assert (tmp_path / "data/mine/results/dpo/seed-0/vlind.json").is_file()


@pytest.mark.long
def test_a_world_makes_the_rows_and_labels_them(tmp_path):
    written(tmp_path, "A world")
    run(tmp_path, "-c", STAGES)
    margins = pd.read_csv(tmp_path / "margins.csv")
    assert margins["id"].str.startswith("square-").all()
    assert set(margins["label"]) <= {"biased", "unbiased"} and set(margins["group"]) == {"question"}


@pytest.mark.long
def test_plugins_run_through_the_pipeline_into_figures_report_and_notebooks(tmp_path):
    written(tmp_path, "A loss")
    written(tmp_path, "A variant")
    (tmp_path / "mine.yaml").write_text(
        "extends: smoke\nplugins: [my_loss, my_variant]\nvariants: [dpo, hinge]\n"
        "baselines: [A1-alpha-5]\nlaunch: {processes: 2}\ntraining: {micro_batch_size: 8}\n"
        "evaluation: {benchmarks: [vlind]}\n"
    )
    run(tmp_path, "-m", "napo", "reproduce", "--profile", "mine.yaml", "--workspace", ".")
    data, figures = tmp_path / "data" / "mine", tmp_path / "figures" / "mine"
    assert {"base", "dpo", "hinge"} == set(pd.read_csv(figures / "comparison.csv")["variant"])
    assert (figures / "training-hinge-full.svg").is_file()
    report = (data / "tables" / "report.html").read_text()
    assert "Hinge on the rejected pair" in report and "hinge over training" in report
    assert "hinge" in (data / "notebooks" / "05_train-hinge.ipynb").read_text()

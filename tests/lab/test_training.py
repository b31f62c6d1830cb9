import json
import shutil

import pytest
from lab_fixtures import Tags

from napo import lab
from napo.errors import NapoError
from napo.lab import runs
from napo.stages.session import open_session
from napo.workspace.manifests import MANIFEST


def test_training_lists_the_finished_runs_in_the_profiles_order_and_draws_those_named(smoke):
    made = lab.training(smoke, runs="A1")
    assert made.runs.options == ("dpo/seed-0", "A1/seed-0") and made.runs.value == ("A1/seed-0",)
    assert "steps of A1/seed-0" in Tags(made.static).of("img")[0]["alt"]
    made.wake()
    made.runs.value = ("dpo/seed-0", "A1/seed-0")
    assert "of dpo/seed-0, A1/seed-0" in Tags(made.view.value).of("img")[0]["alt"]
    made.runs.value = ()
    assert "Choose a run" in made.view.value


def test_records_are_read_once_a_run_and_a_set_of_runs_is_drawn_once(smoke):
    made = lab.training(smoke, runs=["dpo"])
    made.wake()
    made.runs.value = ("dpo/seed-0", "A1/seed-0")
    made.runs.value = ("dpo/seed-0",)
    assert made.steps.cache_info().misses == 2 and made.curves.cache_info().misses == 2


def test_a_run_of_lora_stays_apart_from_the_full_one(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root / "data" / "smoke" / "runs", root / "data/smoke/runs")
    runs = root / "data" / "smoke" / "runs"
    shutil.copytree(runs / "A1", runs / "A1-lora")
    path = runs / "A1-lora" / "seed-0" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tune": "lora"}))
    made = lab.training(open_session("smoke", str(root)), ["A1/seed-0", "A1-lora"])
    assert made.steps("A1-lora/seed-0")["variant"].unique().tolist() == ["A1-lora"]
    assert len(made.runs.options) == 3


def test_unknown_runs_are_refused_with_the_nearest_and_unfinished_ones_are_not_listed(
    smoke, tmp_path
):
    with pytest.raises(NapoError, match=r"Unknown run 'A1/seed-1'. Did you mean 'A1/seed-0'"):
        lab.training(smoke, ["A1/seed-1"])
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root / "data" / "smoke" / "runs", root / "data/smoke/runs")
    (root / "data" / "smoke" / "runs" / "A1" / "seed-0" / MANIFEST).unlink()
    assert lab.training(open_session("smoke", str(root))).runs.options == ("dpo/seed-0",)


def test_a_variant_means_its_full_runs_and_where_there_are_none_those_of_lora():
    there = ["base", "dpo-lora/seed-0", "A1/seed-0", "A1/seed-1", "A1-lora/seed-0", "A1-sft/seed-0"]
    assert runs.chosen(["A1"], there) == ("A1/seed-0", "A1/seed-1")
    assert runs.chosen(["dpo", "base", "A1-lora"], there) == (
        *("dpo-lora/seed-0", "base", "A1-lora/seed-0"),
    )

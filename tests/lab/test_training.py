import shutil

import pytest
from lab_fixtures import Tags

from napo import lab
from napo.errors import NapoError
from napo.lab import runs
from napo.stages.session import open_session
from napo.workspace.files import write_json
from napo.workspace.manifests import MANIFEST, SETTINGS, finish, read_settings


def names(made):
    return [label for label, _ in made.runs.options]


def test_training_lists_the_finished_runs_in_the_profiles_order_and_draws_those_named(smoke):
    made = lab.training(smoke, runs="A1")
    assert names(made) == ["dpo/seed-0", "A1/seed-0"] and made.runs.value == ("A1/seed-0",)
    beside = lab.training(smoke, "A1", beside=["dpo", "LB1"])  # there is no run of LB1
    assert beside.runs.value == ("dpo/seed-0", "A1/seed-0")
    assert "steps of A1/seed-0" in Tags(made.static).of("img")[0]["alt"]
    made.wake()
    made.runs.value = ("dpo/seed-0", "A1/seed-0")
    assert "of dpo/seed-0, A1/seed-0" in Tags(made.view.value).of("img")[0]["alt"]
    made.runs.value = ()
    assert "Choose a run" in made.view.value


@pytest.fixture
def copied(smoke, tmp_path):
    """A session whose runs a test may change."""
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root / "data" / "smoke" / "runs", root / "data/smoke/runs")
    return open_session("smoke", str(root))


def test_a_run_of_lora_stays_apart_from_the_full_one(copied):
    folder = copied.workspace.data / "runs"
    shutil.copytree(folder / "A1", folder / "A1-lora")
    run = folder / "A1-lora" / "seed-0"
    settings = read_settings(run) | {"tune": "lora"}
    (run / MANIFEST).unlink()
    write_json(run / SETTINGS, settings)
    finish(run)
    made = lab.training(copied, ["A1/seed-0", "A1-lora"])
    assert made.steps("A1-lora/seed-0")["variant"].unique().tolist() == ["A1-lora"]
    assert len(made.runs.options) == 3


def test_an_unfinished_run_shows_its_records_so_far_and_those_that_follow(copied):
    run = copied.workspace.data / "runs" / "A1" / "seed-0"
    (run / MANIFEST).unlink()
    first, last = sorted((run / "records").iterdir())
    kept = last.rename(last.with_suffix(".later"))
    made = lab.training(copied, ["A1", "dpo"])
    assert names(made) == ["dpo/seed-0", "A1/seed-0 (so far)"]
    assert made.steps("A1/seed-0")["step"].max() == int(first.stem) - 1
    kept.rename(last)
    assert made.steps("A1/seed-0")["step"].max() == int(last.stem) - 1


def test_runs_without_records_are_not_listed_and_without_any_the_notebook_is_named(copied):
    folder = copied.workspace.data / "runs"
    (folder / "A1" / "seed-0" / MANIFEST).unlink()
    shutil.rmtree(folder / "A1" / "seed-0" / "records")
    assert names(lab.training(copied)) == ["dpo/seed-0"]
    with pytest.raises(NapoError, match=r"Unknown run 'dpo/seed-1'. Did you mean 'dpo/seed-0'"):
        lab.training(copied, ["dpo/seed-1"])
    shutil.rmtree(folder)
    with pytest.raises(NapoError, match=r"no finished run; run notebooks/05_train.ipynb first"):
        lab.training(copied)


def test_a_variant_means_its_full_runs_and_where_there_are_none_those_of_lora():
    names = ["base", "dpo-lora/seed-0", "A1/seed-0", "A1/seed-1", "A1-lora/seed-0", "A1-sft/seed-0"]
    assert runs.matching("A1", names) == ["A1/seed-0", "A1/seed-1"]
    assert runs.matching("dpo", names) == ["dpo-lora/seed-0"]
    assert runs.matching("A1-lora", names) == ["A1-lora/seed-0"]

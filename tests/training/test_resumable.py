"""What a run writes and resumes from, and the private methods of transformers that do it."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import inspect
import shutil
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from trainer_fixtures import base, digest, rows, trainer
from transformers import Trainer

from napo.errors import NapoError
from napo.training.records import read_records
from napo.training.resumable import ResumableTrainer
from napo.training.trainer import NaPOTrainer

# The overridden private methods of transformers.Trainer, with their arguments
PRIVATE = {
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_get_grad_norm": ["self", "model", "grad_norm"],
}


def test_the_overridden_private_methods_have_the_arguments_that_transformers_gives_them():
    overridden = {
        name: list(inspect.signature(method).parameters)
        for owner in (NaPOTrainer, ResumableTrainer)
        for name, method in vars(owner).items()
        if name.startswith("_") and not name.startswith("__") and hasattr(Trainer, name)
    }
    assert overridden == PRIVATE
    for name, parameters in PRIVATE.items():
        assert list(inspect.signature(getattr(Trainer, name)).parameters) == parameters


@pytest.mark.parametrize("package", ["transformers", "trl"])
def test_packages_whose_private_methods_are_overridden_end_at_the_tested_version(package):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["trl"]]
    (allowed,) = (r.specifier for r in map(Requirement, needed) if r.name == package)
    tested = Version(version(package))
    assert tested in allowed
    assert Version(f"{tested.major}.{tested.minor + 1}.0") not in allowed


def test_a_run_keeps_its_records_in_its_own_output_folder(base, rows, tmp_path):
    for name in ("one", "other"):
        trainer(base, rows, tmp_path, output_dir=str(tmp_path / name)).train()
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other"}
    assert len(read_records(tmp_path / "one")) == len(read_records(tmp_path / "other")) == 8


@pytest.mark.kind("a trainer's argument is ignored")
@pytest.mark.parametrize(
    ("limit", "kept"),
    [({}, "4"), ({"save_total_limit": 2}, "34"), ({"save_total_limit": None}, "1234")],
)
def test_the_limit_of_checkpoints_is_kept_and_other_runs_keep_theirs(
    base, rows, tmp_path, limit, kept
):
    steps = {"max_steps": 4, "save_steps": 1, "save_only_model": True}
    trainer(base, rows, tmp_path, **{**steps, "max_steps": 1, "seed": 9}).train()
    folder = tmp_path / "checkpoints"
    foreign = (folder / "checkpoint-1").rename(folder / "checkpoint-9")
    before = digest(foreign)
    trainer(base, rows, tmp_path, **steps, **limit).train()
    names = {f"checkpoint-{step}" for step in kept} | {"checkpoint-9", "records"}
    assert {path.name for path in folder.iterdir()} == names and digest(foreign) == before


@pytest.mark.kind("a trainer's argument is ignored")
@pytest.mark.parametrize("way", ["argument", "setting", "last"])
def test_a_run_resumes_from_a_named_or_its_last_checkpoint(base, rows, tmp_path, way):
    made = trainer(base, rows, tmp_path, max_steps=4, save_steps=2, save_total_limit=None)
    made.train()
    whole = digest(tmp_path / "checkpoints" / "checkpoint-4")
    folder = tmp_path / "checkpoints" / "checkpoint-2"
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-4")
    setting = {"resume_from_checkpoint": str(folder)} if way == "setting" else {}
    resumed = trainer(base, rows, tmp_path, max_steps=4, save_steps=2, **setting)
    resumed.train({"argument": str(folder), "setting": None, "last": True}[way])
    assert digest(tmp_path / "checkpoints" / "checkpoint-4") == whole
    assert resumed.state.global_step == 4 and len(read_records(tmp_path / "checkpoints")) == 16


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [(True, "holds no complete checkpoint"), ("checkpoint-7", "There is no checkpoint")],
)
def test_a_checkpoint_that_does_not_exist_is_one_sentence(
    base, rows, tmp_path, checkpoint, message
):
    with pytest.raises(NapoError, match=message):
        trainer(base, rows, tmp_path).train(checkpoint)


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(base, rows, tmp_path):
    trainer(base, rows, tmp_path).train()
    path = tmp_path / "checkpoints" / "checkpoint-2"
    before = digest(path)
    other = trainer(base, rows, tmp_path, learning_rate=1e-2, max_steps=4, adam_beta2=0.9)
    with pytest.raises(NapoError, match=r"\(adam_beta2, learning_rate, max_steps differ\)"):
        other.train(resume_from_checkpoint=str(path))
    assert digest(path) == before

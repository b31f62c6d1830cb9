"""Training on every engine: two processes over gloo against one, killed and resumed.

They need DeepSpeed and bitsandbytes, so `make test-engines` runs them in an environment of its
own, on the tiny model and smoke rows. With -s a table of what was measured is printed.
"""

import ast
import os
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import family_fixtures
import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file
from trainer_fixtures import digest

from napo import stages
from napo.data.rows import image_bytes, write_reference, write_shard
from napo.method import logprobs
from napo.models.load import load_model
from napo.training.records import read_records
from napo.workspace.files import read_json, write_json

pytestmark = pytest.mark.engines
apart = pytest.mark.apart

CONFIGS = files("napo.training") / "accelerate"
WORKER = Path(__file__).with_name("worker.py")
# name -> configuration, tune, how processes hold the weights
ENGINES = {
    "DDP": ("ddp", "full", "Parameter"),
    "FSDP2": ("fsdp2", "full", "DTensor"),
    "ZeRO-2": ("zero2", "full", "Parameter"),
    "ZeRO-3": ("zero3", "full", "ZeRO-3"),
    "QLoRA": ("ddp", "qlora", "Params4bit"),
}
# Of a weight after eight steps, each of which moves it by about the learning rate (3e-4, LoRA
# 2e-3). Measured were at most 2.1e-6, which is rounding: other sums of the same numbers.
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def table():
    """What was measured, by engine; printed at the end."""
    measured = {name: {} for name in ENGINES}
    yield measured
    packages = ("torch", "transformers", "accelerate", "peft", "deepspeed", "bitsandbytes")
    print("\n\nengine   largest difference   resumed bytes   seconds")
    for name, values in measured.items():
        difference, seconds = values.get("difference"), values.get("seconds")
        print(
            f"{name:<9}{'not run' if difference is None else f'{difference:.1e}':<21}"
            f"{values.get('resumed', 'not run'):<16}{seconds and round(seconds)}"
        )
    print(", ".join(f"{package} {version(package)}" for package in packages))


class Runs:
    """Training runs on engines; a run that is finished is not run again.

    Args:
        folder: the folder of all runs.
        inputs: model, rows and reference, as in a RUN.yaml.
        training: its training section, with the batch size.
    """

    def __init__(self, folder, inputs, training):
        self.folder, self.inputs, self.training = folder, inputs, training
        self.seconds = {}

    def finish(self, strategy, tune="full", **changes):
        """The folder of a finished run; the changes are to its training section."""
        done, folder = self.start(strategy, tune, **changes)
        assert done.returncode == 0, done.stdout[-3000:]
        return folder

    def start(self, strategy, tune="full", suffix="", environment=(), config=None, **changes):
        """One start of a run: the finished process, and the run folder.

        Args:
            strategy: a configuration's name, or "one" for one process without accelerate.
            tune: as in RUN.yaml.
            suffix: keeps runs of the same settings apart.
            environment: more variables.
            config: another configuration of accelerate.
            changes: other settings of the training section.
        """
        name = "-".join([strategy, tune, *map(str, changes.values())]) + suffix
        folder, processes = self.folder / name, 1 if strategy == "one" else 2
        micro = self.training["batch_size"] // processes
        training = {**self.training, "micro_batch_size": micro, **changes}
        file = self.folder / f"{name}.yaml"
        content = {"run_folder": str(folder), "variant": "A1", "tune": tune, "training": training}
        write_json(file, self.inputs | content)  # JSON is YAML
        launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
        launch += [str(config or CONFIGS / f"{strategy}.yaml"), "--num_processes", "2"]
        launch += ["--main_process_port", "0"]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *(launch if processes == 2 else []), str(WORKER), str(file)],
            env={**os.environ, "DS_ACCELERATOR": "cpu", **dict(environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seconds.setdefault(name, time.monotonic() - began)
        return done, folder


@pytest.fixture(scope="session")
def runs(built_smoke, tmp_path_factory):
    """Runs of eight steps of the tiny model on smoke rows, with a checkpoint at each second."""
    inputs = {
        "model": built_smoke.profile.model.location,
        "rows": str(built_smoke.workspace.rows),
        "reference": str(stages.score_reference(built_smoke)),
    }
    training = {**built_smoke.profile.training.model_dump(), "epochs": 2}
    return Runs(tmp_path_factory.mktemp("engines"), inputs, training)


def weights(folder):
    """A run's saved weights by name."""
    (file,) = folder.glob("*/*.safetensors")
    return load_file(file)


def difference(one, two):
    """The largest difference of two runs' weights, which have equal names and types."""
    first, second = weights(one), weights(two)
    assert {name: value.dtype for name, value in first.items()} == {
        name: value.dtype for name, value in second.items()
    }
    return max((first[name] - second[name]).abs().max().item() for name in first)


def summary(folder):
    """A run's training.json, but for the rows of a process: trained parameters, precision ..."""
    content = read_json(folder / "training.json")
    del content["made_from"]["micro_batch_size"]
    return content


def held(folder):
    """How processes held the weights of a run, by kind."""
    return ast.literal_eval(Path(f"{folder}.engine").read_text())


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_the_weights_of_one_process(runs, table, name):
    strategy, tune, kind = ENGINES[name]
    one, two = runs.finish("one", tune), runs.finish(strategy, tune)
    assert kind in held(two), held(two)
    table[name] |= {"difference": difference(one, two), "seconds": runs.seconds[two.name]}
    assert table[name]["difference"] < TOLERANCE
    assert summary(one) == summary(two)
    for file in ("config.json", "adapter_config.json"):
        for path in one.glob(f"*/{file}"):
            assert read_json(path) == read_json(two / path.parent.name / file)
    losses = [read_records(folder).groupby("step")["loss"].mean() for folder in (one, two)]
    assert abs(losses[0] - losses[1]).max() < TOLERANCE


@pytest.mark.parametrize(
    "name", [name if name == "FSDP2" else pytest.param(name, marks=apart) for name in ENGINES]
)
def test_a_killed_run_is_resumed_to_the_same_bytes(runs, table, name):
    strategy, tune, _ = ENGINES[name]
    whole = runs.finish(strategy, tune)
    done, folder = runs.start(strategy, tune, "-killed", {"ENGINE_DIES_AT": "5"})
    assert done.returncode != 0 and (folder / "checkpoint-4" / "checkpoint.json").is_file()
    done, _ = runs.start(strategy, tune, "-killed")
    assert done.returncode == 0, done.stdout[-3000:]
    assert digest(folder) == digest(whole)
    assert (folder / "training.json").read_bytes() == (whole / "training.json").read_bytes()
    table[name]["resumed"] = "equal"


@apart
@pytest.mark.parametrize(
    ("tune", "strategy"),
    [("lora", "fsdp2"), ("lora", "zero2"), ("lora", "zero3"), ("qlora", "fsdp2"),
     ("qlora", "zero2")],
)  # fmt: skip
def test_an_adapter_on_an_engine_is_that_of_one_process(runs, tune, strategy):
    one, two = runs.finish("one", tune), runs.finish(strategy, tune)
    assert difference(one, two) < TOLERANCE
    assert summary(one) == summary(two)


@apart
@pytest.mark.parametrize("strategy", ["fsdp2", "zero2", "zero3"])
def test_a_run_in_bfloat16_saves_the_float32_weights_that_it_trained(runs, strategy):
    one, two = runs.finish("one", bf16=True), runs.finish(strategy, bf16=True)
    assert difference(one, two) < 0.02  # with the same names and types
    config = "model/config.json"
    assert read_json(one / config) == read_json(two / config)
    trained = weights(two)["language_model.model.layers.0.mlp.down_proj.weight"]
    assert not trained.bfloat16().float().equal(trained)
    assert summary(two)["made_from"]["bf16"] is True
    psi = [read_records(run)["vision_biased_logp"] for run in (two, runs.finish(strategy))]
    assert abs(psi[0] - psi[1]).max() > 1e-3  # it computed in bfloat16, and only where it says so


@apart
def test_a_weight_that_zero3_shares_out_is_checked_before_it_is_saved(runs):
    done, folder = runs.start("zero3", suffix="-broken", environment={"ENGINE_BREAKS_AT": "4"})
    assert "A weight is not finite at step 4" in done.stdout
    assert f"({folder / 'checkpoint-2'} is kept)" in done.stdout


@apart
def test_qlora_with_zero3_is_refused_by_name(runs):
    done, folder = runs.start("zero3", "qlora")
    assert "napo: tune is qlora, and DeepSpeed ZeRO-3 cannot share out" in done.stdout
    assert not (folder / "adapter").exists()


@apart
@pytest.mark.parametrize("strategy", ["fsdp2", "zero2"])
def test_a_users_configuration_of_another_precision_is_refused(runs, tmp_path, strategy):
    yaml = YAML()
    config = yaml.load((CONFIGS / f"{strategy}.yaml").read_text())
    if strategy == "fsdp2":
        config["mixed_precision"] = "bf16"
        message = "napo: ACCELERATE_MIXED_PRECISION is bf16 in the environment"
    else:
        engine = {"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}
        engine |= {"train_micro_batch_size_per_gpu": "auto", "bf16": {"enabled": True}}
        write_json(tmp_path / "engine.json", engine)
        file = {"deepspeed_config_file": str(tmp_path / "engine.json"), "zero3_init_flag": False}
        config["deepspeed_config"] = file
        del config["mixed_precision"]
        message = "napo: bf16.enabled is True in the DeepSpeed configuration"
    yaml.dump(config, tmp_path / "own.yaml")
    done, folder = runs.start(strategy, suffix="-own", config=tmp_path / "own.yaml")
    assert message in done.stdout, done.stdout[-3000:]
    assert not (folder / "model").exists()


@apart
@pytest.mark.parametrize("family", family_fixtures.SIZES)
def test_fsdp2_shards_every_family_and_gives_the_weights_of_one_process(tmp_path, family):
    processor = family_fixtures.processor(family)
    family_fixtures.model(family, processor).save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    model, processor = load_model(tmp_path / "base", device="cpu")
    made = family_fixtures.rows(family, 8)
    scores = logprobs.score_reference(model, processor, made)
    images = [{**row, "image": image_bytes(row["image"])} for row in made]
    write_shard(tmp_path / "rows" / "shard-0.parquet", images)
    scored = [{"id": row["id"], **score} for row, score in zip(made, scores, strict=True)]
    write_reference(tmp_path / "reference" / "shard-0.parquet", scored)
    inputs = {name: str(tmp_path / name) for name in ("rows", "reference")}
    training = {"batch_size": 8, "epochs": 2, "learning_rate": 3e-4, "max_length": 512}
    runs = Runs(tmp_path, {"model": str(tmp_path / "base"), **inputs}, training)
    one, two = runs.finish("one"), runs.finish("fsdp2")
    assert set(held(two)) == {"DTensor", "wrapper"}
    assert difference(one, two) < TOLERANCE

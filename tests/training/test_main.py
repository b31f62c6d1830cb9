"""`python -m napo.training`, alone and in several processes."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import json
import os
import subprocess
import sys

import pytest
import torch
from trainer_fixtures import SETTINGS, base, digest, rows

from napo.config.variants import RESPONSES
from napo.models.load import load_model
from napo.training.__main__ import main
from napo.training.records import read_records
from napo.training.run import train_run
from napo.workspace.locks import hold, work_on
from napo.workspace.manifests import require


def write_run(base, rows, tmp_path, run_folder, variant="A1", **training):
    """A RUN.yaml with its data beside it."""
    from napo.data.rows import image_bytes, write_reference, write_shard

    data = [{**row, "image": image_bytes(row["image"])} for row in rows]
    scores = [k for k in rows[0] if k.endswith(("_logp", "_tokens"))]
    plain = [{k: v for k, v in row.items() if k not in scores} for row in data]
    write_shard(tmp_path / "rows" / "shard-0.parquet", plain)
    reference = [{"id": row["id"], **{k: row[k] for k in scores}} for row in rows]
    write_reference(tmp_path / "reference" / "shard-0.parquet", reference)
    run = {
        "run_folder": str(run_folder),
        "model": str(base),
        "rows": str(tmp_path / "rows"),
        "reference": str(tmp_path / "reference"),
        "variant": variant,
        "training": {**SETTINGS.model_dump(), **training},
    }
    file = tmp_path / f"{run_folder.name}.yaml"
    file.write_text(json.dumps(run))  # JSON is YAML
    return file


def test_a_run_file_trains_as_the_function_does_and_is_sealed(base, rows, tmp_path):
    file = write_run(base, rows, tmp_path, tmp_path / "run")
    assert main([str(file)]) == 0
    train_run(tmp_path / "direct", base, rows, "A1", SETTINGS, seed=0)
    assert digest(tmp_path / "run") == digest(tmp_path / "direct")
    manifest = require(tmp_path / "run")
    assert manifest["settings"]["variant"] == "A1" and "training.json" in manifest["files"]
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert {"code", "machine", "parameters"} <= set(provenance)
    assert main([str(file)]) == 0  # a finished run is left as it is


def test_an_unknown_key_of_a_run_file_is_named(base, rows, tmp_path, capsys):
    file = write_run(base, rows, tmp_path, tmp_path / "run")
    file.write_text(json.dumps({**json.loads(file.read_text()), "varaint": "A1"}))
    assert main([str(file)]) == 1
    assert "Did you mean 'variant'" in capsys.readouterr().err


@pytest.mark.kind("a stale reference")
@pytest.mark.parametrize(
    ("name", "value"),
    [("system", "is the cat"), ("image_mode", "pad"), ("max_length", 63), ("dtype", "bfloat16")],
)
def test_a_reference_of_other_settings_is_refused(base, rows, tmp_path, capsys, name, value):
    file = write_run(base, rows, tmp_path, tmp_path / "run")
    scored = {"system": "", "image_mode": "crop", "max_length": 64, "dtype": "float32"}
    with work_on(tmp_path / "reference", scored):
        pass
    run = json.loads(file.read_text())
    (run["training"] if name == "max_length" else run)[name] = value
    file.write_text(json.dumps(run))
    assert main([str(file)]) == 1
    assert f"{name} is {value!r}, and the reference in" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_call_without_a_file_prints_the_usage(capsys):
    assert main([]) == 2
    assert "usage: python -m napo.training RUN.yaml" in capsys.readouterr().err


def test_a_run_folder_in_use_is_refused(base, rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("napo.workspace.locks.PATIENCE", 0.0)
    file = write_run(base, rows, tmp_path, tmp_path / "run")
    with hold(tmp_path / "run", "already works in"):
        assert main([str(file)]) == 1
    assert f"Process {os.getpid()} on " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize("variant", ["A1", "random", "drdpo", "A2-pair"])
def test_two_processes_give_the_losses_of_one_with_the_same_batch(base, rows, tmp_path, variant):
    curves, weights = [], []
    for processes, micro in ((1, 8), (2, 4)):
        folder = tmp_path / f"on-{processes}"
        file = write_run(base, rows, tmp_path, folder, variant, micro_batch_size=micro)
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *launch, "-m", "napo.training", str(file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        records = read_records(folder)
        assert len(records) == 48
        curves.append(records.groupby("step")["loss"].mean().to_numpy())
        weights.append(load_model(folder / "model", device="cpu")[0].lm_head.weight)
    assert abs(curves[0] - curves[1]).max() < 1e-5
    assert torch.allclose(*weights, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(("processes", "micro"), [(1, 8), (2, 4), (4, 2)])
def test_bfloat16_runs_start_at_margin_zero_on_any_number_of_processes(
    base, rows, tmp_path, processes, micro
):
    folder = tmp_path / "run"
    file = write_run(base, rows, tmp_path, folder, bf16=True, micro_batch_size=micro, epochs=1)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launch, "-m", "napo.training", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    records = read_records(folder)
    first = records[records["step"] == 0]
    for name in RESPONSES[1:]:
        assert first[f"{name}_gamma"].to_numpy() == pytest.approx(1 / 3)
    assert (first[["language_biased_q", "vision_biased_q"]] == 0.5).all(axis=None)

"""A tiny base model, its rows with reference log-probs, and a trainer on them."""

import hashlib
from pathlib import Path

import engine_fixtures as engine
import pytest

from napo.config.profile import Training
from napo.config.variants import CORRUPTED, RESPONSES, VARIANTS
from napo.method import logprobs
from napo.method.objective import Objective
from napo.models.load import load_model
from napo.training.trainer import NaPOConfig, NaPOTrainer

SETTINGS = Training(
    learning_rate=3e-3,
    lora_learning_rate=1e-2,
    epochs=3,
    batch_size=8,
    micro_batch_size=4,
    warmup_ratio=0.0,
    save_steps=2,
    max_length=64,
    lora_r=4,
    lora_alpha=8,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return engine.saved(tmp_path_factory.mktemp("trainer") / "base")


@pytest.fixture(scope="module")
def rows(base):
    model, processor = load_model(base, device="cpu")
    made = engine.rows(18)
    responses = (*RESPONSES, CORRUPTED)
    scored = logprobs.score_reference(model, processor, made, responses)
    return [row | score for row, score in zip(made, scored, strict=True)]


def digest(folder):
    """Hashes of a run's weights and records, by path."""
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix in (".safetensors", ".parquet"))
    assert files
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def unscored(rows):
    """The rows without the reference's columns."""
    return [{k: v for k, v in row.items() if not k.endswith(("_logp", "_tokens"))} for row in rows]


def trainer(base, rows, tmp_path, objective="A1", **changes):
    model, processor = load_model(base, device="cpu")
    settings = {
        "output_dir": str(tmp_path / "checkpoints"),
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return NaPOTrainer(
        model=model,
        args=NaPOConfig(**{**settings, **changes}),
        objective=Objective(VARIANTS[objective]),
        train_dataset=rows,
        processing_class=processor,
    )

"""`NaPOTrainer` by itself: reference, accumulation, refusals."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import engine_fixtures as engine
import pytest
import torch
from trainer_fixtures import base, digest, rows, trainer, unscored

from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method.objective import Objective
from napo.models import families
from napo.models.load import load_model
from napo.training import checkpoints
from napo.training.trainer import NaPOConfig, NaPOTrainer


def test_rows_without_a_reference_are_scored_before_training(base, tmp_path):
    made = trainer(base, engine.rows(8), tmp_path, logging_steps=1)
    made.train()
    logged = made.state.log_history
    assert logged[0]["rejected_psi_sum"] == pytest.approx(0, abs=1e-5)
    assert {"loss", "grad_norm", "vision_biased_gamma"} <= set(logged[0])
    assert (tmp_path / "checkpoints" / "checkpoint-2" / checkpoints.MANIFEST).is_file()


def test_evaluation_during_training_is_refused(base, rows, tmp_path):
    with pytest.raises(NapoError, match="does not evaluate during training"):
        trainer(base, rows, tmp_path, eval_strategy="steps")


def adapted(base, rows, folder, reference, **changes):
    """A short LoRA run of A1 with the log history of its steps."""
    from peft import LoraConfig

    model, processor = load_model(base, device="cpu")
    settings = {"per_device_train_batch_size": 4, "max_steps": 3, "logging_steps": 1}
    args = NaPOConfig(
        output_dir=str(folder),
        reference=reference,
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        **settings,
        **changes,
    )
    lora = LoraConfig(
        r=4, target_modules=["q_proj"], exclude_modules=families.FAMILIES["llava"].image_parts
    )
    made = NaPOTrainer(model, args, Objective(VARIANTS["A1"]), rows, processor, peft_config=lora)
    made.train()
    return [entry for entry in made.state.log_history if "vision_biased_psi_sum" in entry]


def test_switching_the_adapter_off_gives_the_stored_reference(base, rows, tmp_path):
    stored = adapted(base, rows, tmp_path / "stored", "cached")
    computed = adapted(base, unscored(rows), tmp_path / "computed", "adapter_off")
    assert stored[-1]["vision_biased_psi_sum"] != pytest.approx(0, abs=1e-3)
    # Not the total: gamma divides margins near 0, which amplifies rounding.
    for one, other in zip(stored, computed, strict=True):
        for term in ("rejected", "language_biased", "vision_biased"):
            assert one[f"{term}_loss"] == pytest.approx(other[f"{term}_loss"], abs=1e-5)
            assert one[f"{term}_psi_sum"] == pytest.approx(other[f"{term}_psi_sum"], abs=1e-4)


def test_a_full_model_has_no_adapter_to_switch_off(base, rows, tmp_path):
    with pytest.raises(NapoError, match="no adapter to switch off"):
        trainer(base, rows, tmp_path, reference="adapter_off")
    with pytest.raises(NapoError, match="Did you mean 'adapter_off'"):
        trainer(base, rows, tmp_path, reference="adapter-off")


def test_accumulated_gradients_equal_those_of_the_whole_batch(base, rows, tmp_path):
    """dpo has no batch averages, so the size of its micro-batches does not matter."""
    weights = []
    for micro in (2, 8):
        made = trainer(
            base,
            rows,
            tmp_path / str(micro),
            "dpo",
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // micro,
            optim="sgd",
            learning_rate=0.1,
            max_steps=1,
            lr_scheduler_type="constant",
        )
        made.train()
        weights.append(made.model.lm_head.weight.detach().clone())
    assert torch.allclose(*weights, atol=1e-6)
    start = load_model(base, device="cpu")[0].lm_head.weight
    assert not torch.allclose(weights[0], start, atol=1e-4)


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(base, rows, tmp_path):
    trainer(base, rows, tmp_path).train()
    path = tmp_path / "checkpoints" / "checkpoint-2"
    before = digest(path)
    other = trainer(base, rows, tmp_path, learning_rate=1e-2, max_steps=4)
    with pytest.raises(NapoError, match=r"another run \(learning_rate, max_steps differ\)"):
        other.train(resume_from_checkpoint=str(path))
    assert digest(path) == before

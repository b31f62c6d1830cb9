"""Numbers that are not finite stop the training before they reach a checkpoint."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import pytest
import torch
from trainer_fixtures import SETTINGS, base, rows, trainer
from transformers import TrainerCallback

from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method.objective import Objective
from napo.models.load import load_model
from napo.training import checkpoints
from napo.training.run import train_run
from napo.training.trainer import NaPOConfig, NaPOTrainer


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("rejected_logp", -1, "the reference belongs to another model"),
        ("chosen_logp", float("nan"), r"reference's .* not a number \(row row-\d+, chosen\)"),
    ],
)
def test_a_wrong_reference_stops_before_the_first_step(
    base, rows, tmp_path, column, change, message
):
    wrong = [{**row, column: row[column] + change} for row in rows]
    with pytest.raises(NapoError, match=message):
        trainer(base, wrong, tmp_path).train()


class InfiniteWeight(TrainerCallback):
    """One weight becomes infinite at the end of a step, as after a memory fault."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            weight = next(p for p in model.parameters() if p.requires_grad)
            with torch.no_grad():
                weight.view(-1)[0] = torch.inf


@pytest.mark.kind("half precision that is not said")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("by", ["run", "trainer"])
def test_full_tuning_of_half_precision_weights_is_refused(base, rows, tmp_path, dtype, by, result):
    with pytest.raises(NapoError, match=rf"weights to train are {dtype}, .* set bf16") as caught:
        if by == "run":
            train_run(tmp_path / "run", base, rows, "dpo", SETTINGS, seed=0, dtype=dtype)
        else:
            model, processor = load_model(base, device="cpu", dtype=dtype)
            args = NaPOConfig(str(tmp_path), per_device_train_batch_size=4, use_cpu=True)
            NaPOTrainer(model, args, "dpo", rows, processor)
    assert not list(tmp_path.glob("run/*"))
    result(caught.value)


@pytest.mark.parametrize(
    ("step", "problem", "noticed"),
    [(3, "A log-probability is not a number", 3), (4, "A weight is not finite", 4)],
)
def test_an_infinite_weight_stops_training_and_keeps_the_last_good_checkpoint(
    base, rows, tmp_path, step, problem, noticed
):
    made = trainer(base, rows, tmp_path, max_steps=8, save_steps=2)
    made.add_callback(InfiniteWeight(step))
    with pytest.raises(NapoError) as caught:
        made.train()
    kept = tmp_path / "checkpoints" / "checkpoint-2"
    assert str(caught.value).startswith(problem)
    assert f"at step {noticed}; lower the learning rate" in str(caught.value)
    assert str(caught.value).endswith(f"({kept} is kept).")
    checkpoints.require(kept, made.run_identity)


def test_an_infinite_gradient_stops_training_before_the_optimiser_uses_it(base, rows, tmp_path):
    steep = Objective(VARIANTS["dpo"], beta=1e30)
    with pytest.raises(NapoError, match=r"gradient is not finite at step 0; .* no checkpoint yet"):
        train_run(tmp_path / "run", base, rows, steep, SETTINGS, seed=0)
    assert not (tmp_path / "run" / "model").exists()

"""Numbers that overflow stop the training before they reach a checkpoint."""

# ruff: noqa: F401, F811 - fixtures of test_trainer

from dataclasses import replace

import pytest
import torch
from trainer_fixtures import SETTINGS, base, rows, trainer
from transformers import TrainerCallback

from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method.objective import Objective
from napo.training import checkpoints
from napo.training.run import train_run


class Spoil(TrainerCallback):
    """At the end of a step one weight becomes infinite, as a failing memory would leave it."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            weight = next(p for p in model.parameters() if p.requires_grad)
            with torch.no_grad():
                weight.view(-1)[0] = torch.inf


@pytest.mark.parametrize(
    ("step", "problem", "named"),
    [(3, "A log-probability is not a number", 3), (4, "A weight is not finite", 4)],
)
def test_spoilt_weights_stop_it_and_the_last_good_checkpoint_stays(
    base,
    rows,
    tmp_path,
    step,
    problem,
    named,
):
    made = trainer(base, rows, tmp_path, max_steps=8, save_steps=2)
    made.add_callback(Spoil(step))
    with pytest.raises(NapoError) as caught:
        made.train()
    kept = tmp_path / "checkpoints" / "checkpoint-2"
    assert str(caught.value).startswith(problem)
    assert f"at step {named}; lower the learning rate" in str(caught.value)
    assert str(caught.value).endswith(f"({kept} is kept).")
    checkpoints.require(kept, made.run_identity)


def test_a_gradient_that_overflows_stops_before_the_step_that_it_would_spoil(
    base,
    rows,
    tmp_path,
):
    steep = Objective(VARIANTS["dpo"], beta=1e30)
    with pytest.raises(NapoError, match=r"gradient is not finite at step 0; .* no checkpoint yet"):
        train_run(tmp_path / "run", base, rows, steep, SETTINGS, seed=0)
    assert not (tmp_path / "run" / "model").exists()


def test_a_learning_rate_that_is_far_too_large_is_said_at_the_step_where_it_shows(
    base,
    rows,
    tmp_path,
):
    wild = SETTINGS.model_copy(update={"learning_rate": 1e37, "save_steps": 1})
    with pytest.raises(NapoError, match=r"at step \d+; lower the learning rate"):
        train_run(tmp_path / "run", base, rows, "A1", wild, seed=0)
    assert not (tmp_path / "run" / "training.json").exists()

"""`NaPOTrainer` by itself: reference, accumulation, refusals."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

from dataclasses import replace

import engine_fixtures as engine
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from trainer_fixtures import base, digest, rows, trainer, unscored
from transformers import TrainerCallback

from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method.objective import Objective
from napo.models import families
from napo.models.load import load_model
from napo.training import checkpoints
from napo.training.records import read_records
from napo.training.trainer import NaPOConfig, NaPOTrainer


def test_rows_without_a_reference_are_scored_before_training(base, tmp_path):
    made = trainer(base, engine.rows(8), tmp_path, logging_steps=1)
    made.train()
    logged = made.state.log_history
    assert logged[0]["rejected_psi_sum"] == pytest.approx(0, abs=1e-5)
    assert {"loss", "grad_norm", "vision_biased_gamma"} <= set(logged[0])
    assert (tmp_path / "checkpoints" / "checkpoint-2" / checkpoints.MANIFEST).is_file()


@pytest.mark.kind("a trainer's argument is ignored")
@pytest.mark.parametrize("logging_steps", [3, 0.75])
def test_reports_average_the_records_of_all_steps_since_the_last(
    base, rows, tmp_path, logging_steps
):
    made = trainer(
        base,
        rows,
        tmp_path,
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        logging_steps=logging_steps,
    )
    made.train()
    (entry,) = (entry for entry in made.state.log_history if "loss" in entry)
    records = read_records(tmp_path / "checkpoints").query("step < 3")
    assert entry["step"] == 3 and len(records) == 12
    for name in ("loss", "rejected_psi_sum", "vision_biased_q", "language_biased_gamma"):
        assert entry[name] == pytest.approx(records[name].mean(), rel=1e-5), name
    assert entry["rejected_accuracy"] == pytest.approx((records["rejected_psi_sum"] > 0).mean())
    assert {"learning_rate", "grad_norm"} <= set(entry)


def test_evaluation_is_refused(base, rows, tmp_path):
    made = trainer(base, rows, tmp_path)
    for call in (made.evaluate, made.predict):
        with pytest.raises(NapoError, match="does not evaluate during training"):
            call(rows)


@pytest.mark.kind("a trainer's argument is ignored")
def test_a_model_is_loaded_from_its_folder_or_id_and_an_objective_from_its_name(
    base, rows, tmp_path
):
    args = NaPOConfig(
        str(tmp_path / "a"), per_device_train_batch_size=4, max_steps=2, use_cpu=True, seed=3
    )
    NaPOTrainer(str(base), args, "A1", rows).train()
    trainer(base, rows, tmp_path, output_dir=str(tmp_path / "b"), seed=3).train()
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    with pytest.raises(NapoError, match="Did you mean 'A1'"):
        NaPOTrainer(str(base), args, "A11", rows)


def test_callbacks_and_a_users_optimiser_are_used(base, rows, tmp_path):
    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, *_, **__):
            self.steps += 1

    model, processor = load_model(base, device="cpu")
    args = NaPOConfig(str(tmp_path), per_device_train_batch_size=4, max_steps=2, use_cpu=True)
    own, count = torch.optim.SGD(model.parameters(), lr=0.0), Count()
    before = model.lm_head.weight.detach().clone()
    NaPOTrainer(
        model, args, "dpo", rows, processor, callbacks=[count], optimizers=(own, None)
    ).train()
    assert count.steps == 2 and torch.equal(model.lm_head.weight, before)


def adapter():
    return LoraConfig(
        r=4, target_modules=["q_proj"], exclude_modules=families.FAMILIES["llava"].image_parts
    )


@pytest.mark.kind("a trainer's argument is ignored")
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("optimiser of the base", "lacks 4 of the 4 trained weights"),
        ("second adapter", "the model has an adapter already"),
        ("frozen adapter", "Every weight of the model is frozen"),
        ("tokenizer", "give the model's processor"),
        ("named adapter", "adapters are named style, .* one adapter"),
        ("two adapters", "adapters are named default, style, .* one adapter"),
    ],
)
def test_arguments_that_do_not_fit_the_model_are_refused(
    base, rows, tmp_path, case, message, result
):
    model, processor = load_model(base, device="cpu")
    args = NaPOConfig(str(tmp_path), per_device_train_batch_size=4, max_steps=2, use_cpu=True)
    others = {}
    if case == "optimiser of the base":
        others = {"optimizers": (torch.optim.SGD(model.parameters()), None)}
    elif case == "tokenizer":
        processor = processor.tokenizer
    else:
        name = "style" if case == "named adapter" else "default"
        model = get_peft_model(model, adapter(), adapter_name=name)
    if case == "two adapters":
        model.add_adapter("style", adapter())
    if case == "frozen adapter":
        model.requires_grad_(False)
    elif "adapters" not in case and "named" not in case:
        others["peft_config"] = adapter()
    with pytest.raises(NapoError, match=message) as error:
        NaPOTrainer(model, args, "dpo", rows, processor, **others)
    result(error.value)


def test_flex_attention_is_refused_on_a_cpu(base, rows, tmp_path):
    model, processor = load_model(base, device="cpu", attention="flex_attention")
    args = NaPOConfig(str(tmp_path), per_device_train_batch_size=4, use_cpu=True)
    with pytest.raises(NapoError, match="flex_attention has no backward pass on a CPU"):
        NaPOTrainer(model, args, "A1", rows, processor)


def adapted(base, rows, folder, reference, **changes):
    """A short LoRA run of A1 with the log history of its steps."""
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
    made = NaPOTrainer(model, args, "A1", rows, processor, peft_config=adapter())
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


@pytest.mark.kind("a stale reference")
def test_a_trained_adapter_is_no_reference_when_it_is_off(base, rows, tmp_path, result):
    model, processor = load_model(base, device="cpu")
    model = get_peft_model(model, adapter())
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, 0.5)
    settings = {"per_device_train_batch_size": 4, "max_steps": 1, "use_cpu": True}
    for reference in ("adapter_off", "cached"):
        args = NaPOConfig(str(tmp_path / reference), reference=reference, **settings)
        made = NaPOTrainer(model, args, "dpo", unscored(rows), processor)
        if reference == "cached":
            made.train()
            continue
        with pytest.raises(NapoError, match=r"adapter does not start at zero .* cached") as error:
            made.train()
        result(error.value)


def test_a_full_model_has_no_adapter_to_switch_off(base, rows, tmp_path):
    with pytest.raises(NapoError, match="no adapter to switch off"):
        trainer(base, rows, tmp_path, reference="adapter_off")
    with pytest.raises(NapoError, match="Did you mean 'adapter_off'"):
        trainer(base, rows, tmp_path, reference="adapter-off")


@pytest.mark.parametrize("variant", ["dpo", "A2-pair"])
def test_micro_batches_do_not_matter_without_batch_averages(base, rows, tmp_path, variant):
    """Weights of pairs take the spread of the steps before, not of their own micro-batch."""
    objective = Objective(VARIANTS[variant])
    if variant == "A2-pair":  # q of Eq. 12 averages a micro-batch
        terms = tuple(replace(term, loss="dpo") for term in VARIANTS[variant].terms)
        objective = Objective(replace(VARIANTS[variant], terms=terms))
    weights, records = [], []
    for micro in (2, 8):
        made = trainer(
            base,
            rows,
            tmp_path / str(micro),
            variant,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // micro,
            optim="sgd",
            learning_rate=0.1,
            max_steps=4,
            lr_scheduler_type="constant",
        )
        made.objective = objective
        made.train()
        weights.append(made.model.lm_head.weight.detach().clone())
        records.append(read_records(tmp_path / str(micro) / "checkpoints"))
    assert torch.allclose(*weights, atol=1e-6)
    start = load_model(base, device="cpu")[0].lm_head.weight
    assert not torch.allclose(weights[0], start, atol=1e-4)
    if variant == "A2-pair":
        last = [part[part["step"] == 3].sort_values("id") for part in records]
        for name in ("rejected_weight", "rejected_spread", "vision_biased_spread"):
            values = [part[name].to_numpy() for part in last]
            assert values[0] == pytest.approx(values[1], rel=1e-4), name
        assert abs(last[0]["rejected_weight"] - 1).max() > 1e-2


def test_the_spread_is_the_running_mean_of_the_steps_before(base, rows, tmp_path):
    made = trainer(base, rows, tmp_path, "dpo-pair", max_steps=4, learning_rate=1e-2)
    made.train()
    records = read_records(tmp_path / "checkpoints")
    sizes = records["rejected_psi_sum"].abs().groupby(records["step"]).mean().tolist()
    assert sizes[1] > 1e-3
    # No step before 0 and 1 counts; then |psi| of step 1, then its mean with step 2, 0.9 : 1.
    spreads = [0, 0, sizes[1], (0.9 * sizes[1] + sizes[2]) / 1.9]
    used = records.groupby("step")["rejected_spread"].agg(["min", "max"])
    assert used["min"].tolist() == used["max"].tolist() == pytest.approx(spreads, rel=1e-6)
    # The ramp ends a third of the way, at 4 / 3 of a step: 0, then 3 / 4, then 1.
    for step, ramp in enumerate((0, 0.75, 1, 1)):
        part = records[records["step"] == step]
        spread = max(spreads[step], 0.05)
        expected = 1 + ramp * np.tanh(part["rejected_psi_sum"] / spread)
        assert part["rejected_weight"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_the_spread_is_that_of_all_processes(base, rows, tmp_path, monkeypatch):
    made = trainer(base, rows, tmp_path, "dpo-pair")
    margins = torch.randn(8, generator=torch.Generator().manual_seed(0)).tolist()
    parts = [margins, margins[:4], margins[4:]]
    whole, one, two = (
        {"rejected_psi_sum": part, "rejected_spread": [0.25] * len(part)} for part in parts
    )
    made.measure_spreads(3, whole)
    spreads, other = made.spreads, sum(map(abs, two["rejected_psi_sum"])) / 4
    monkeypatch.setattr(
        "napo.training.trainer.mean_over_processes", lambda mean: (mean + other) / 2
    )
    made.measure_spreads(3, one)
    assert made.spreads == spreads != [0.25]

"""Our objective against TRL's trainer, on the same rows."""

import copy
import logging

import pytest
import torch
from engine_fixtures import model, picture, processor

from napo.config.variants import VARIANTS, Term, Variant
from napo.errors import NapoError
from napo.method.logprobs import collate, response_logprobs, score_reference
from napo.method.objective import Objective
from napo.method.tensors import LogProbs

trl = pytest.importorskip("trl", reason="TRL is in the lock's development set")
datasets = pytest.importorskip("datasets")

from napo.training.trl import ObjectiveDPOTrainer  # noqa: E402 - it needs TRL

QUESTIONS = ("what colour is the cat ?", "is there a bird in the picture ?", "describe the picture")
CHOSEN = ("the cat is red .", "yes , there is a bird .", "a dog and a cat .")
REJECTED = ("it is blue .", "no .", "the bird is on the left of a green dog .")


def as_trl(processor, question, chosen, rejected, shown):
    """A row in TRL's format whose tokens equal those of our prompts."""
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    prompt = processor.apply_chat_template(message, add_generation_prompt=True)
    end = processor.tokenizer.eos_token
    return {
        "prompt": f"{processor.tokenizer.bos_token} {prompt}",
        "chosen": f"{chosen} {end}",
        "rejected": f"{rejected} {end}",
        "images": [shown],
    }


@pytest.fixture
def setting(tmp_path):
    ours = processor()
    pictures = [picture(at) for at in range(3)]
    rows = [
        {"id": str(at), "image": shown, "question": q, "chosen": c, "rejected": r}
        for at, (shown, q, c, r) in enumerate(
            zip(pictures, QUESTIONS, CHOSEN, REJECTED, strict=True)
        )
    ]
    trl_rows = [as_trl(ours, r["question"], r["chosen"], r["rejected"], r["image"]) for r in rows]
    policy, reference = model(ours, seed=1), model(ours, seed=2)
    settings = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=0.1,
        per_device_train_batch_size=3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    data = datasets.Dataset.from_list(trl_rows)
    return ours, rows, policy, reference, settings, data


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def ours_on(setting, objective):
    ours, rows, policy, reference, *_ = setting
    names = ("chosen", "rejected")
    mine = copy.deepcopy(policy)
    base = LogProbs.from_rows(score_reference(reference, ours, rows, names), names)
    output = objective(response_logprobs(mine, collate(rows, ours, names)), base)
    output.loss.backward()
    return output.loss.item(), gradients(mine)


def trainer_on(setting, kind, **more):
    ours, _, policy, reference, settings, data = setting
    return kind(
        copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=settings,
        train_dataset=data,
        processing_class=ours,
        **more,
    )


def step(trainer):
    """Loss and gradients of a batch, and the batch."""
    trainer.model.train()
    torch.manual_seed(0)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), gradients(trainer.model), batch


def same(first, second):
    """Two losses and their gradients are the same."""
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        assert torch.allclose(gradient, second[1][name], rtol=1e-3, atol=1e-5), name


def test_dpo_is_trls_dpo_in_loss_and_gradients(setting):
    same(ours_on(setting, Objective(VARIANTS["dpo"])), step(trainer_on(setting, trl.DPOTrainer)))


def test_ipo_per_token_is_trls_ipo_in_loss_and_gradients(setting):
    objective = Objective(Variant("one", (Term("rejected", "ipo-mean"),), "none"))
    setting[4].loss_type = ["ipo"]
    same(ours_on(setting, objective), step(trainer_on(setting, trl.DPOTrainer)))


@pytest.mark.parametrize("average, alpha", [("sum", 0.01), ("mean", 0.5)])
def test_napo_in_trl_is_ours_in_loss_and_gradients(setting, average, alpha):
    objective = Objective(Variant("one", (Term("rejected", "napo", average, alpha),), "none"))
    theirs = step(trainer_on(setting, ObjectiveDPOTrainer, objective=objective))
    same(ours_on(setting, objective), theirs)


def test_a_q_for_each_pair_in_trl_takes_the_spread_of_its_batch(setting):
    terms = (Term("rejected", "napo"),)
    objective = Objective(Variant("one", terms, "none", q_rule="per-pair"))
    theirs = step(trainer_on(setting, ObjectiveDPOTrainer, objective=objective))
    same(ours_on(setting, objective), theirs)


NAPO_MEAN = Objective(Variant("one", (Term("rejected", "napo", "mean", 0.5),), "none"))


def cut_away(setting, *cut):
    """An `ObjectiveDPOTrainer` whose collator leaves these rows of a batch without completion."""
    trainer = trainer_on(setting, ObjectiveDPOTrainer, objective=NAPO_MEAN)
    collate_all = trainer.data_collator

    def collator(rows):
        batch = collate_all(rows)
        for row in cut:
            batch["completion_mask"][[row, row + len(rows)]] = 0
        return batch

    trainer.data_collator = collator
    return trainer


@pytest.mark.kind("zero tokens")
def test_trl_leaves_out_a_pair_without_tokens_and_says_so_once(setting, caplog, result):
    trainer = cut_away(setting, 1)
    with caplog.at_level(logging.WARNING, "napo"):
        loss, slopes, batch = step(trainer)
        step(trainer)
    (message,) = [r.getMessage() for r in caplog.records if "without tokens" in r.getMessage()]
    assert message.startswith("1 of a batch's 3 pairs")
    rest = {key: value[[0, 2, 3, 5]] for key, value in batch.items() if key != "pixel_values"}
    rest["pixel_values"] = batch["pixel_values"][[0, 2, 3, 5]]
    trainer.model.zero_grad()
    expected = trainer.compute_loss(trainer.model, rest)
    expected.backward()
    same((loss, slopes), (expected.item(), gradients(trainer.model)))
    result(message)


@pytest.mark.kind("zero tokens")
def test_a_trl_batch_without_any_tokens_changes_no_weight(setting, result):
    trainer = cut_away(setting, 0, 1, 2)
    loss, slopes, _ = step(trainer)
    assert loss == 0 and all(not gradient.any() for gradient in slopes.values())
    assert not trainer._metrics["train"]
    result("loss 0, gradients 0, no metrics")


@pytest.mark.kind("zero tokens")
def test_trl_training_with_a_pair_cut_away_keeps_its_weights_finite(setting):
    trainer = cut_away(setting, 1)
    trainer.args.max_steps = 2
    trainer.train()
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


def test_trl_stops_at_a_loss_that_is_not_finite_instead_of_logging_0(setting):
    trainer = cut_away(setting)
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(NapoError, match="The loss is not finite at step 0; lower the learning"):
        step(trainer)


def test_trl_cannot_take_three_pairs(setting):
    with pytest.raises(NapoError, match="language_biased"):
        trainer_on(setting, ObjectiveDPOTrainer, objective=Objective(VARIANTS["A1"]))

"""Our objective against TRL's trainer, on the same rows."""

import copy

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


def theirs_on(setting, kind, **more):
    ours, _, policy, reference, settings, data = setting
    trainer = kind(
        copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=settings,
        train_dataset=data,
        processing_class=ours,
        **more,
    )
    trainer.model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), gradients(trainer.model)


def same(first, second):
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        assert torch.allclose(gradient, second[1][name], rtol=1e-3, atol=1e-5), name


def test_dpo_is_trls_dpo_in_loss_and_gradients(setting):
    same(ours_on(setting, Objective(VARIANTS["dpo"])), theirs_on(setting, trl.DPOTrainer))


@pytest.mark.parametrize("average, alpha", [("sum", 0.01), ("mean", 0.5)])
def test_napo_in_trl_is_ours_in_loss_and_gradients(setting, average, alpha):
    from napo.training.trl import ObjectiveDPOTrainer

    objective = Objective(Variant("one", (Term("rejected", "napo", average, alpha),), "none"))
    theirs = theirs_on(setting, ObjectiveDPOTrainer, objective=objective)
    same(ours_on(setting, objective), theirs)


def test_trl_cannot_take_three_pairs(setting):
    from napo.training.trl import ObjectiveDPOTrainer

    with pytest.raises(NapoError, match="language_biased"):
        theirs_on(setting, ObjectiveDPOTrainer, objective=Objective(VARIANTS["A1"]))

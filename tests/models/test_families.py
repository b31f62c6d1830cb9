"""Every family that napo knows: masks, answers, log-probs, a training step, and a way back."""

import family_fixtures as fixtures
import pytest
import torch

from napo.config.profile import Decoding
from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.mask import choose_layout
from napo.method.objective import Objective
from napo.models import families
from napo.models.generate import Prompt, generate
from napo.models.load import has_axes, load_model
from napo.models.prompts import mask_token_id, prompt_inputs, render, response_ids, stack_pixels
from napo.training.trainer import NaPOConfig, NaPOTrainer

FAMILIES = sorted(families.FAMILIES)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def processor(family):
    return fixtures.processor(family)


@pytest.fixture(scope="module")
def model(family, processor):
    return fixtures.model(family, processor)


def official(model, processor, row, response=""):
    """What the family's own processor makes of a prompt (and response), as it is called by hand."""
    text = render(processor, row["question"], image=True) + response
    return processor(
        images=[row["image"]], text=[text], return_tensors="pt", add_special_tokens=True
    )


def test_a_prompt_is_what_the_familys_own_processor_makes(family, model, processor):
    for row in fixtures.rows(family, 3):
        try:
            expected = official(model, processor, row)
        except (ImportError, AttributeError, TypeError) as error:  # its video part is not there
            pytest.skip(f"the processor's own call needs torchvision: {error}")
        made = prompt_inputs(processor, row["question"], row["image"])
        assert made.ids == expected["input_ids"][0].tolist()
        for name, value in stack_pixels([made.pixels]).items():
            assert torch.equal(value, expected[name]), name


def test_logprobs_are_those_of_plain_calls_one_response_at_a_time(family, model, processor):
    rows = fixtures.rows(family, 3)
    batch = logprobs.collate(rows, processor)
    assert choose_layout(model) == "shared"
    with torch.no_grad():
        shared = logprobs.response_logprobs(model, batch)
        padded = logprobs.response_logprobs(
            model, logprobs.collate(rows, processor, layout="padded")
        )
    torch.testing.assert_close(shared.sum, padded.sum, rtol=1e-4, atol=1e-4)
    for number, row in enumerate(rows):
        prompt = prompt_inputs(processor, row["question"], row["image"])
        text = render(processor, row["question"], image=True)
        for at, name in enumerate(batch.responses):
            (ids,) = response_ids(processor, text, [row[name]])
            if not row.get(f"{name}_cut"):
                ids = [*ids, processor.tokenizer.eos_token_id]
            whole = torch.tensor([prompt.ids + ids])
            inputs = {"input_ids": whole, **stack_pixels([prompt.pixels])}
            if has_axes(model):
                inputs["mm_token_type_ids"] = (whole == processor.image_token_id).int()
            with torch.no_grad():
                logits = model(**inputs, attention_mask=torch.ones_like(whole)).logits[0]
            known = logits.log_softmax(-1)[len(prompt.ids) - 1 : -1]
            expected = known.gather(-1, torch.tensor(ids)[:, None]).sum()
            torch.testing.assert_close(shared.sum[number, at], expected, rtol=1e-4, atol=1e-4)


def test_the_picture_counts(family, model, processor):
    first, second = fixtures.rows(family, 2)
    other = {**first, "image": second["image"].resize(first["image"].size)}
    with torch.no_grad():
        seen = [
            logprobs.response_logprobs(model, logprobs.collate([row], processor)).sum
            for row in (first, other)
        ]
    assert not torch.allclose(*seen, atol=1e-3)


def test_masks_hide_one_modality_and_keep_the_other(family, processor):
    row = fixtures.rows(family, 1)[0]
    plain = prompt_inputs(processor, row["question"], row["image"])
    visual, mask = processor.image_token_id, mask_token_id(processor)
    blind = prompt_inputs(processor, row["question"], row["image"], image_mask="mask_token")
    assert blind.ids == [mask if token == visual else token for token in plain.ids]
    assert not blind.pixels and visual in plain.ids
    mute = prompt_inputs(processor, row["question"], row["image"], text_mask="mask_token")
    changed = [
        at for at, pair in enumerate(zip(plain.ids, mute.ids, strict=True)) if len({*pair}) > 1
    ]
    words = processor.tokenizer(row["question"], add_special_tokens=False)["input_ids"]
    assert [plain.ids[at] for at in changed] == words
    assert {mute.ids[at] for at in changed} == {mask}
    without = prompt_inputs(processor, row["question"], row["image"], image_mask="drop")
    assert visual not in without.ids and not without.pixels


@pytest.mark.parametrize("beams", [1, 2])
def test_answers_in_a_batch_are_those_one_by_one(family, model, processor, beams):
    rows = fixtures.rows(family, 4)
    prompts = [Prompt(row["question"], row["image"]) for row in rows]
    prompts[1] = Prompt(rows[1]["question"], rows[1]["image"], image_mask="mask_token")
    prompts[2] = Prompt(rows[2]["question"], rows[2]["image"], text_mask="drop")
    prompts.append(Prompt(rows[3]["question"]))
    decoding = Decoding(max_new_tokens=6, num_beams=beams)
    together = generate(model, processor, prompts, decoding, batch_size=8)
    alone = [generate(model, processor, [p], decoding)[0] for p in prompts]
    assert [g.text for g in together] == [g.text for g in alone]
    assert len({g.text for g in together}) > 2


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_training_step_learns_and_spares_the_vision_tower(family, processor, tmp_path, tune):
    from peft import LoraConfig

    entry = families.FAMILIES[family]
    fresh = fixtures.model(family, processor)
    before = {name: value.clone() for name, value in fresh.named_parameters()}
    lora = LoraConfig(
        r=2,
        target_modules=entry.lora_targets.split(","),
        exclude_modules=entry.image_parts,
        init_lora_weights="gaussian",
    )
    trainer = NaPOTrainer(
        model=fresh,
        args=NaPOConfig(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=2,
            max_steps=2,
            learning_rate=1e-2,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        objective=Objective(VARIANTS["A1"]),
        train_dataset=fixtures.rows(family, 4),
        processing_class=processor,
        peft_config=lora if tune == "lora" else None,
    )
    trainer.train()
    if tune == "lora":
        adapted = [n for n, p in trainer.model.named_parameters() if p.requires_grad]
        assert adapted and not any(entry.is_frozen(name) for name in adapted)
        return
    changed = {n for n, p in fresh.named_parameters() if not torch.equal(p, before[n])}
    frozen = {name for name in before if entry.is_frozen(name)}
    assert frozen and not changed & frozen
    assert any("lm_head" in name for name in changed)
    assert any("self_attn" in name for name in changed)


def test_a_saved_model_comes_back_through_napos_loader(family, model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, again = load_model(tmp_path, device="cpu")
    assert not families.examine(loaded, again)
    rows = fixtures.rows(family, 2)
    with torch.no_grad():
        found, expected = (
            logprobs.response_logprobs(m, logprobs.collate(rows, p)).sum
            for m, p in ((loaded, again), (model, processor))
        )
    assert torch.equal(found, expected)


def test_an_unknown_family_says_what_its_entry_would_hold(tmp_path):
    from transformers import LlamaConfig

    with pytest.raises(NapoError, match=r"'llama'.*idefics3.*register.*\[MASK\]"):
        families.of_config(LlamaConfig())
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(NapoError, match="no entry for the model type 'llama'"):
        load_model(tmp_path)


def test_a_registered_family_is_known(monkeypatch):
    entry = families.Family("mine", "MyProcessor", frozen="vision.*", image_parts="vision.*")
    monkeypatch.setitem(families.FAMILIES, "mine", entry)  # removed again after the test
    assert families.register(entry) is families.FAMILIES["mine"]


def test_what_a_model_lacks_is_named(processor, family, model):
    template, processor.chat_template = processor.chat_template, None
    try:
        lacks = families.examine(model, processor)
    finally:
        processor.chat_template = template
    known = bool(families.FAMILIES[family].template)
    assert ["chat template" in sentence for sentence in lacks] == ([] if known else [True])

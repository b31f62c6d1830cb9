"""Every registered family: masks, answers, log-probs, one training step, save and reload."""

import family_fixtures as fixtures
import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy

from napo.config.profile import Decoding
from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.mask import choose_layout
from napo.method.objective import Objective
from napo.models import families
from napo.models.conversation import render
from napo.models.generate import Prompt, generate
from napo.models.load import has_axes, load_model, wrap_held_classes
from napo.models.prompts import mask_token_id, prompt_inputs, response_ids, stack_pixels
from napo.training.run import lora_config
from napo.training.trainer import NaPOConfig, NaPOTrainer


@pytest.fixture(scope="module", params=sorted(families.FAMILIES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def processor(family):
    return fixtures.processor(family)


@pytest.fixture(scope="module")
def model(family, processor):
    return fixtures.model(family, processor)


def scores(model, processor, rows, **options):
    with torch.no_grad():
        batch = logprobs.collate(rows, processor, **options)
        return logprobs.response_logprobs(model, batch).sum


def test_a_prompt_equals_the_output_of_the_familys_own_processor(family, processor):
    for row in fixtures.rows(family, 3):
        text = render(processor, row["question"], image=True)
        try:
            expected = processor(
                images=[row["image"]], text=[text], return_tensors="pt", add_special_tokens=True
            )
        except (ImportError, AttributeError, TypeError) as error:  # its video part is missing
            pytest.skip(f"the processor's own call needs torchvision: {error}")
        prompt = prompt_inputs(processor, row["question"], row["image"])
        assert prompt.ids == expected["input_ids"][0].tolist()
        for name, value in stack_pixels([prompt.pixels]).items():
            assert torch.equal(value, expected[name]), name


def test_shared_and_padded_logprobs_equal_plain_calls_for_each_response(family, model, processor):
    rows = fixtures.rows(family, 3)
    shared = scores(model, processor, rows)
    padded = scores(model, processor, rows, layout="padded")
    torch.testing.assert_close(shared, padded, rtol=1e-4, atol=1e-4)
    responses = logprobs.collate(rows, processor).responses
    for number, row in enumerate(rows):
        prompt = prompt_inputs(processor, row["question"], row["image"])
        text = render(processor, row["question"], image=True)
        for column, name in enumerate(responses):
            (ids,) = response_ids(processor, text, [row[name]])
            if not row.get(f"{name}_cut"):
                ids = [*ids, processor.tokenizer.eos_token_id]
            sequence = torch.tensor([prompt.ids + ids])
            inputs = {"input_ids": sequence, **stack_pixels([prompt.pixels])}
            if has_axes(model):
                inputs["mm_token_type_ids"] = (sequence == processor.image_token_id).int()
            with torch.no_grad():
                logits = model(**inputs, attention_mask=torch.ones_like(sequence)).logits[0]
            logps = logits.log_softmax(-1)[len(prompt.ids) - 1 : -1]
            expected = logps.gather(-1, torch.tensor(ids)[:, None]).sum()
            torch.testing.assert_close(shared[number, column], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_batch_equals_one_row_at_a_time(family, processor, attention):
    model = fixtures.model(family, processor)
    model.set_attn_implementation(attention)
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = fixtures.rows(family, 8)

    def outputs(rows, layout):
        batch = logprobs.collate(rows, processor, layout=layout)
        values = logprobs.response_logprobs(model, batch).sum
        gradients = torch.autograd.grad(values.diff(dim=1).sum(), trained, allow_unused=True)
        return batch, values, [g for g in gradients if g is not None]

    layout = choose_layout(model)
    assert layout == ("shared" if has_axes(model) else "packed")
    batch, values, gradients = outputs(rows, layout)
    single = [outputs([row], "shared") for row in rows]
    torch.testing.assert_close(values, torch.cat([v for _, v, _ in single]), rtol=1e-5, atol=1e-5)
    for mine, *theirs in zip(gradients, *(g for *_, g in single), strict=True):
        expected = sum(theirs)
        assert (mine - expected).abs().max() <= 1e-5 * expected.abs().max() + 1e-5
    if layout == "packed":
        assert len(batch.input_ids) < len(rows)


def test_masks_hide_one_modality_and_keep_the_other(family, processor):
    row = fixtures.rows(family, 1)[0]
    plain = prompt_inputs(processor, row["question"], row["image"])
    visual, mask = processor.image_token_id, mask_token_id(processor)
    no_image = prompt_inputs(processor, row["question"], row["image"], image_mask="mask_token")
    assert no_image.ids == [mask if token == visual else token for token in plain.ids]
    assert not no_image.pixels and visual in plain.ids
    no_text = prompt_inputs(processor, row["question"], row["image"], text_mask="mask_token")
    pairs = zip(plain.ids, no_text.ids, strict=True)
    changed = [(before, after) for before, after in pairs if before != after]
    words = processor.tokenizer(row["question"], add_special_tokens=False)["input_ids"]
    assert changed == [(word, mask) for word in words]
    dropped = prompt_inputs(processor, row["question"], row["image"], image_mask="drop")
    assert visual not in dropped.ids and not dropped.pixels


@pytest.mark.parametrize("beams", [1, 2])
def test_answers_in_a_batch_equal_answers_one_by_one(family, model, processor, beams):
    rows = fixtures.rows(family, 4)
    masks = [{}, {"image_mask": "mask_token"}, {"text_mask": "drop"}, {}]
    prompts = [
        Prompt(row["question"], row["image"], **mask) for row, mask in zip(rows, masks, strict=True)
    ]
    prompts.append(Prompt(rows[3]["question"]))
    decoding = Decoding(max_new_tokens=6, num_beams=beams)
    together = generate(model, processor, prompts, decoding, batch_size=8)
    assert together == [generate(model, processor, [p], decoding)[0] for p in prompts]
    assert len({answer.text for answer in together}) > 2


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_training_step_learns_and_spares_the_vision_tower(family, processor, tmp_path, tune):
    from napo.config.profile import Training

    entry = families.FAMILIES[family]
    trainer = NaPOTrainer(
        model=fixtures.model(family, processor),
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
        peft_config=lora_config(Training(lora_r=2), entry) if tune == "lora" else None,
    )
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    frozen = {name for name in before if entry.is_frozen(name)}
    assert frozen and not changed & frozen
    assert any("self_attn" in name for name in changed)
    assert any("lm_head" in name for name in changed) == (tune == "full")


def test_fsdp2_shards_layers_of_every_family(model):
    wrap_held_classes(model)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap"
    )
    plugin.set_auto_wrap_policy(model)
    shards = fsdp2_prepare_auto_wrap_policy(plugin, model)  # it raises for a class that is missing
    assert sum(shards(module) for module in model.modules()) >= 4  # of tower and language model


def test_a_saved_model_comes_back_through_napos_loader(family, model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    rows = fixtures.rows(family, 2)
    loaded = scores(*load_model(tmp_path, device="cpu"), rows)
    assert torch.equal(loaded, scores(model, processor, rows))


def test_an_unknown_family_says_how_to_register_one(tmp_path):
    from transformers import PaliGemmaConfig

    PaliGemmaConfig().save_pretrained(tmp_path)
    sentence = r"for the model type 'paligemma' \(known: idefics3.*register.*docs/extend.md"
    with pytest.raises(NapoError, match=sentence):
        load_model(tmp_path)

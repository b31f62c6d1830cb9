"""Batched generation against one prompt at a time by `model.generate`."""

import io
from dataclasses import replace
from functools import partial

import engine_fixtures as engine
import pytest
import torch
from PIL import Image
from source_fixtures import encoded
from transformers.cache_utils import DynamicLayer

import napo.models.generate
from napo.config.profile import Decoding
from napo.errors import NapoError
from napo.models import families
from napo.models.conversation import render
from napo.models.decoder import ROOM, Decoder, RoomyLayer
from napo.models.generate import Prompt, generate
from napo.models.prompts import prompt_inputs


@pytest.fixture(scope="module")
def processor():
    return engine.processor()


@pytest.fixture(scope="module")
def model(processor):
    return ending_model(processor)


def ending_model(processor):
    """A model that ends some answers early: its end token has a large weight."""
    model = engine.model(processor, seed=1)
    with torch.no_grad():
        model.lm_head.weight[processor.tokenizer.eos_token_id] *= 4
    return model


@pytest.fixture(scope="module")
def prompts():
    """Prompts of many lengths, with shared images, without images, and with masks."""
    pictures = [engine.picture(n) for n in range(3)]
    prompts = []
    for number, row in enumerate(engine.rows(14, seed=5)):
        image = None if number % 5 == 4 else pictures[number % 3]
        masks = {"image_mask": "mask_token"} if number % 4 == 1 else {}
        masks |= {"text_mask": "mask_token"} if number % 7 == 2 else {}
        prompts.append(Prompt(row["question"], image, **(masks if image else {})))
    return prompts


def by_the_library(model, processor, prompt, **settings):
    """One prompt alone through the processor and `model.generate`."""
    text = render(processor, prompt.text, image=prompt.image is not None)
    images = [prompt.image] if prompt.image else None
    inputs = processor(text=[text], images=images, return_tensors="pt")
    never = [processor.tokenizer.convert_tokens_to_ids(t) for t in ("<pad>", "<s>", "<unk>")]
    output = model.generate(
        **inputs,
        do_sample=False,
        suppress_tokens=[*never, processor.image_token_id],
        min_new_tokens=1,
        **settings,
    )
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(params=["equal lengths", "padded"])
def batches(request, monkeypatch):
    """Both kinds of batches: without padding (CPU), and full with padding (GPU)."""
    original = napo.models.generate.batches
    if request.param == "padded":
        padded = lambda *given, equal: original(*given, equal=False)  # noqa: E731
        monkeypatch.setattr(napo.models.generate, "batches", padded)


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("beams", [1, 3])
def test_answers_equal_model_generate_for_one_prompt_at_a_time(processor, model, prompts, beams):
    plain = [p for p in prompts if not p.image_mask and not p.text_mask]
    answers = generate(model, processor, plain, Decoding(max_new_tokens=6, num_beams=beams))
    lengths = set()
    for prompt, answer in zip(plain, answers, strict=True):
        ids = by_the_library(model, processor, prompt, max_new_tokens=6, num_beams=beams)
        assert answer.text == processor.tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.cut is (processor.tokenizer.eos_token_id not in ids)
        lengths.add(answer.tokens)
    assert len(lengths) > 1 or beams > 1  # rows left the batch at different steps


@pytest.mark.usefixtures("batches")
def test_sampled_answers_depend_on_the_seed_and_not_on_the_batch_size(processor, model, prompts):
    before = torch.random.get_rng_state()
    decoding = Decoding(max_new_tokens=7, temperature=0.8, top_p=0.9)
    alone = generate(model, processor, prompts, decoding, batch_size=1, seed=4)
    assert generate(model, processor, prompts, decoding, batch_size=3, seed=4) == alone
    assert generate(model, processor, prompts, decoding, seed=5) != alone
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("beams", [1, 2])
def test_keyed_sampling_does_not_depend_on_the_other_prompts(processor, model, prompts, beams):
    decoding = Decoding(max_new_tokens=7, temperature=1.0, num_beams=beams)
    keyed = [replace(prompt, key=f"row-{index}") for index, prompt in enumerate(prompts)]
    answers = partial(generate, model, processor, decoding=decoding, batch_size=1)
    expected = answers(keyed)
    assert answers(keyed[:5]) + answers(keyed[5:]) == expected
    assert answers(keyed[::-1]) == expected[::-1]
    assert len({answer.text for answer in answers([prompts[0]] * 6)}) > 1


def test_sampled_tokens_have_the_models_probabilities(processor, model):
    prompt = Prompt("is the cat red ?")
    ids = torch.tensor([prompt_inputs(processor, prompt.text).ids])
    logits = model(input_ids=ids).logits[0, -1]
    tokenizer = processor.tokenizer
    logits[[0, 1, 2, 3, processor.image_token_id]] = -torch.inf  # never, or not as the first token
    chances = (logits / 1.5).softmax(-1)
    decoding = Decoding(max_new_tokens=1, temperature=1.5)
    answers = generate(model, processor, [prompt] * 600, decoding, batch_size=300)
    likeliest = int(chances.argmax())
    share = sum(a.text == tokenizer.decode([likeliest]) for a in answers) / 600
    expected = chances[likeliest].item()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 600) ** 0.5


def test_a_tiny_top_p_is_greedy(processor, model, prompts):
    greedy = generate(model, processor, prompts, Decoding(max_new_tokens=5))
    narrow = Decoding(max_new_tokens=5, temperature=1.0, top_p=1e-6)
    assert generate(model, processor, prompts, narrow) == greedy


def test_batches_group_similar_lengths_and_are_full_unless_equal_is_set():
    lengths = {0: 5, 1: 3, 2: 5, 3: 4, 4: 3, 5: 5}
    batches = partial(napo.models.generate.batches, lengths, {n: n for n in lengths})
    assert list(batches(4, equal=False)) == [[1, 4, 3, 0], [2, 5]]
    assert list(batches(2, equal=True)) == [[1, 4], [3], [0, 2], [5]]


def test_batches_keep_prompts_of_one_image_together():
    lengths, images = {0: 5, 1: 3, 2: 5, 3: 3, 4: 9}, {0: 0, 1: 1, 2: 1, 3: 0, 4: 4}
    batches = partial(napo.models.generate.batches, lengths, images)
    assert list(batches(2, equal=False)) == [[3, 0], [1, 2], [4]]
    assert list(batches(9, equal=True)) == [[3, 1], [0, 2], [4]]


@pytest.fixture(scope="module")
def questions():
    """Three questions of different lengths about each of two images."""
    rows, pictures = engine.rows(6, seed=8), [engine.picture(n) for n in range(2)]
    texts = [" ".join([row["question"]] * (1 + n % 3)) for n, row in enumerate(rows)]
    return [Prompt(text, pictures[n // 3]) for n, text in enumerate(texts)]


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("size", [2, 6])
def test_prompts_that_share_an_image_are_answered_as_if_alone(processor, model, questions, size):
    decoding = Decoding(max_new_tokens=6)
    alone = [generate(model, processor, [prompt], decoding)[0] for prompt in questions]
    assert generate(model, processor, questions, decoding, batch_size=size) == alone


def test_the_tokens_of_an_image_are_read_once_for_all_its_prompts(
    processor, model, questions, monkeypatch
):
    read, original = [], Decoder.read
    monkeypatch.setattr(
        Decoder,
        "read",
        lambda self, embeddings, mask, cache: (
            read.append(embeddings.shape[:2].numel()) or original(self, embeddings, mask, cache)
        ),
    )
    same = [replace(prompt, text="is the cat red ?") for prompt in questions]
    generate(model, processor, same, Decoding(max_new_tokens=1))
    ids = prompt_inputs(processor, same[0].text, same[0].image).ids
    head = len(ids) - ids[::-1].index(processor.image_token_id)
    assert read == [2 * head, 6 * (len(ids) - head)]


def test_keys_and_values_grow_as_the_librarys_do():
    ours, theirs = RoomyLayer(), DynamicLayer()
    for step in range(ROOM + 9):  # past the first room
        states = torch.randn(2, 3, 2, 1 + step % 2, 4)  # keys and values of three sequences
        for mine, its in zip(ours.update(*states), theirs.update(*states), strict=True):
            assert torch.equal(mine, its)
        if step == 5:
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([2, 0, 0]))


def test_each_image_passes_the_vision_tower_once(processor, model, prompts, monkeypatch):
    seen = []
    original = model.get_image_features

    def counting(pixel_values, **kwargs):
        seen.append(len(pixel_values))
        return original(pixel_values=pixel_values, **kwargs)

    monkeypatch.setattr(model, "get_image_features", counting)
    generate(model, processor, prompts, Decoding(max_new_tokens=2), batch_size=2)
    assert sum(seen) == 3


def test_answers_do_not_depend_on_how_image_features_are_held(
    processor, model, prompts, monkeypatch
):
    decoding = Decoding(max_new_tokens=5)
    expected = generate(model, processor, prompts, decoding)
    monkeypatch.setattr("napo.models.decoder.FEATURE_BYTES", 0)
    monkeypatch.setattr("napo.models.decoder.IMAGE_BATCH", 1)
    assert generate(model, processor, prompts, decoding) == expected
    other = replace(families.FAMILIES["llava"], shares_features=False)
    monkeypatch.setitem(families.FAMILIES, "llava", other)
    assert generate(model, processor, prompts, decoding) == expected


def test_a_lora_model_generates_with_its_adapter(processor, prompts):
    from peft import LoraConfig, get_peft_model

    base = ending_model(processor)
    decoding = Decoding(max_new_tokens=6)
    before = generate(base, processor, prompts, decoding)
    wrapped = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    assert generate(wrapped, processor, prompts, decoding) == before
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert generate(wrapped, processor, prompts, decoding) != before


@pytest.mark.kind("pictures lose what they show")
def test_a_picture_that_does_not_decode_is_one_sentence(processor, model, result):
    content = encoded(Image.effect_noise((64, 64), 90))[:900]
    prompt = Prompt("what is it ?", Image.open(io.BytesIO(content)))
    with pytest.raises(
        NapoError, match=r"^The image of 'what is it \?' cannot be used: it"
    ) as error:
        generate(model, processor, [prompt], Decoding(max_new_tokens=1))
    result(error.value)

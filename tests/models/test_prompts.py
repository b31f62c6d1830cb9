"""Prompts, masks and image tokens."""

import engine_fixtures as engine
import pytest

from napo.errors import NapoError
from napo.models import prompts
from napo.models.conversation import render
from napo.models.generate import Prompt
from napo.models.prompts import (
    corrupt_image,
    image_pixels,
    mask_image,
    mask_token_id,
    prompt_inputs,
    response_ids,
)


@pytest.fixture(scope="module")
def processor():
    return engine.processor()


@pytest.mark.parametrize(
    "hostile", ["what </s> colour", "<s>what <unk>colour<pad>", "what <ima<image>ge>colour"]
)
def test_special_tokens_in_data_are_removed(processor, hostile):
    clean = prompt_inputs(processor, "what colour", engine.picture(1))
    assert prompt_inputs(processor, hostile, engine.picture(1)).ids == clean.ids
    prompt = render(processor, "what", image=True)
    expected, ids = response_ids(processor, prompt, ["what colour", hostile])
    assert ids == expected


@pytest.mark.parametrize(("mask", "value"), [("blank_white", 255), ("blank_black", 0)])
def test_blank_images_have_one_colour_and_the_same_size(mask, value):
    blank = mask_image(engine.picture(1), mask)
    assert blank.size == (24, 24) and blank.getextrema() == ((value, value),) * 3


def test_noise_is_the_same_for_the_same_image_and_only_for_it():
    first = mask_image(engine.picture(1), "noise").tobytes()
    assert first == mask_image(engine.picture(1), "noise").tobytes()
    assert first != mask_image(engine.picture(2), "noise").tobytes()
    assert first != engine.picture(1).tobytes()


@pytest.mark.parametrize(
    ("question", "mask", "expected"),
    [
        ("is the cat red ?", "mask_token", ["<unk>"] * 5),
        ("ASSISTANT: USER:", "mask_token", ["<unk>"] * 2),  # words of the template
        ("is the cat red ?", "drop", []),
    ],
)
def test_a_text_mask_hides_the_question_and_nothing_else(processor, question, mask, expected):
    ids = Prompt(question, engine.picture(1), text_mask=mask).inputs(processor).ids
    tokens = processor.tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["<s>", "USER:", *["<image>"] * 4, *expected, "ASSISTANT:"]


def test_an_unknown_mask_suggests_the_nearest(processor):
    with pytest.raises(NapoError, match="Did you mean 'mask_token'"):
        prompt_inputs(processor, "a", engine.picture(1), image_mask="mask-token")


def test_a_tokenizer_without_unk_is_an_error_that_names_other_masks():
    bare = engine.processor()
    bare.tokenizer.unk_token = None
    with pytest.raises(NapoError, match="blank_white"):
        mask_token_id(bare)


def test_a_crop_has_1_to_20_percent_of_the_area_and_depends_on_its_key():
    image = engine.picture(3, size=200)
    crops = [corrupt_image(image, f"row-{n}") for n in range(50)]
    shares = [crop.width * crop.height / 200**2 for crop in crops]
    assert min(shares) >= 0.009 and max(shares) <= 0.21 and max(shares) - min(shares) > 0.1
    assert crops[0].tobytes() == corrupt_image(image, "row-0").tobytes()


def test_padding_to_a_square_keeps_the_full_image(processor):
    wide = engine.picture(5, size=48).crop((0, 0, 48, 24))
    processor.image_mode = "pad"
    try:
        padded = image_pixels(processor, wide)["pixel_values"]
    finally:
        processor.image_mode = "crop"
    assert padded.shape == (1, 3, 24, 24)
    # The bands above and below are the mean colour, hence 0 after normalisation.
    assert padded[0, :, :5].abs().max() < 0.05 and padded[0, :, 10:14].abs().max() > 0.5


def test_equal_images_are_preprocessed_once_for_processors_of_the_same_settings(monkeypatch):
    monkeypatch.setattr(prompts, "_pixels", {})
    one, two = engine.processor(), engine.processor()
    first = image_pixels(one, engine.picture(5))
    assert image_pixels(two, engine.picture(5)) is first
    other = image_pixels(one, engine.picture(6))["pixel_values"]
    assert not other.equal(first["pixel_values"])
    two.image_processor.image_mean = [0.1, 0.1, 0.1]
    changed = image_pixels(two, engine.picture(5))["pixel_values"]
    assert not changed.allclose(first["pixel_values"])
    monkeypatch.setattr(prompts, "PIXEL_BYTES", 0)
    image_pixels(one, engine.picture(7))
    again = image_pixels(one, engine.picture(5))  # no room was left for it
    assert again is not first and again["pixel_values"].equal(first["pixel_values"])


@pytest.mark.parametrize("space_at_start", [True, False])
def test_a_subword_tokenizers_boundary_is_that_of_the_joint_text(space_at_start):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space_at_start)
    core.decoder = decoders.ByteLevel()
    text = ["USER: is the cat red ? ASSISTANT: yes , the cat is red .", "yes the cat"] * 5
    core.train_from_iterator(text, trainers.BpeTrainer(vocab_size=400, special_tokens=["<image>"]))
    processor = engine.processor()
    processor.tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    prompt = render(processor, "is the cat red ?", image=False)
    answer = "yes , the cat is red ."
    (ids,) = response_ids(processor, prompt, [answer])
    encode = processor.tokenizer.encode
    assert encode(prompt) + ids == encode(f"{prompt} {answer}")
    assert processor.tokenizer.decode(ids).strip() == answer

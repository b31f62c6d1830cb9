"""Prompts, masks and image tokens."""

import engine_fixtures as engine
import pytest
import torch

from napo.errors import NapoError
from napo.models.prompts import (
    corrupt_image,
    image_pixels,
    mask_image,
    mask_token_id,
    prompt_inputs,
    render,
    response_ids,
    stack_pixels,
)


@pytest.fixture(scope="module")
def processor():
    return engine.processor()


def tokens(processor, inputs):
    return processor.tokenizer.convert_ids_to_tokens(inputs.ids)


def test_a_rendered_prompt_ends_before_the_assistants_answer(processor):
    prompt = render(processor, "is the cat red ?", image=True)
    assert prompt == "USER: <image>\nis the cat red ? ASSISTANT:"
    assert "<image>" not in render(processor, "is the cat red ?", image=False)


def test_an_image_token_in_the_question_is_removed(processor):
    prompt = render(processor, "<image>\nis the cat red ?", image=True)
    assert prompt.count("<image>") == 1


@pytest.mark.parametrize(
    "hostile", ["what </s> colour", "<s>what <unk>colour<pad>", "what <ima<image>ge>colour"]
)
def test_special_tokens_in_data_are_removed(processor, hostile):
    clean = prompt_inputs(processor, "what colour", engine.picture(1))
    assert prompt_inputs(processor, hostile, engine.picture(1)).ids == clean.ids
    prompt = render(processor, "what", image=True)
    expected, ids = response_ids(processor, prompt, ["what colour", hostile])
    assert ids == expected


def test_prompt_inputs_equal_the_processors_own_output(processor):
    image = engine.picture(1)
    inputs = prompt_inputs(processor, "is the cat red ?", image)
    text = render(processor, "is the cat red ?", image=True)
    expected = processor(text=[text], images=[image], return_tensors="pt")
    assert inputs.ids == expected["input_ids"][0].tolist()
    assert torch.equal(inputs.pixels["pixel_values"], expected["pixel_values"])


def test_mask_token_keeps_the_number_of_visual_tokens(processor):
    image = engine.picture(1)
    plain = prompt_inputs(processor, "is the cat red ?", image)
    masked = prompt_inputs(processor, "is the cat red ?", image, image_mask="mask_token")
    unk, visual = processor.tokenizer.unk_token_id, processor.image_token_id
    assert plain.ids.count(visual) == 4 and not masked.pixels
    assert masked.ids == [unk if token == visual else token for token in plain.ids]


def test_a_dropped_image_gives_a_prompt_without_image(processor):
    dropped = prompt_inputs(processor, "a cat ?", engine.picture(1), image_mask="drop")
    assert dropped == prompt_inputs(processor, "a cat ?")


@pytest.mark.parametrize(("mask", "value"), [("blank_white", 255), ("blank_black", 0)])
def test_blank_images_have_one_colour_and_the_same_size(mask, value):
    blank = mask_image(engine.picture(1), mask)
    assert blank.size == (24, 24) and blank.getextrema() == ((value, value),) * 3


def test_noise_is_the_same_for_the_same_image_and_only_for_it():
    first = mask_image(engine.picture(1), "noise").tobytes()
    assert first == mask_image(engine.picture(1), "noise").tobytes()
    assert first != mask_image(engine.picture(2), "noise").tobytes()
    assert first != engine.picture(1).tobytes()


def test_masking_the_question_replaces_only_its_tokens(processor):
    inputs = prompt_inputs(processor, "is the cat red ?", engine.picture(1), text_mask="mask_token")
    visual = ["<image>"] * 4
    assert tokens(processor, inputs) == ["<s>", "USER:", *visual, *["<unk>"] * 5, "ASSISTANT:"]


def test_masking_finds_a_question_made_of_the_templates_words(processor):
    inputs = prompt_inputs(processor, "ASSISTANT: USER:", text_mask="mask_token")
    assert tokens(processor, inputs) == ["<s>", "USER:", "<unk>", "<unk>", "ASSISTANT:"]


def test_a_dropped_question_leaves_the_users_text_empty(processor):
    inputs = prompt_inputs(processor, "is the cat red ?", engine.picture(1), text_mask="drop")
    assert tokens(processor, inputs) == ["<s>", "USER:", *["<image>"] * 4, "ASSISTANT:"]


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


def test_responses_are_tokenized_as_the_prompts_continuation(processor):
    prompt = render(processor, "is the cat red ?", image=True)
    ids = response_ids(processor, prompt, [" yes it is red . ", "no"])
    words = [processor.tokenizer.convert_ids_to_tokens(answer) for answer in ids]
    assert words == [["yes", "it", "is", "red", "."], ["no"]]


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


def test_a_varying_number_of_tiles_is_padded():
    one, two = torch.ones(1, 2, 3), torch.ones(1, 4, 3)
    stacked = stack_pixels([{"pixel_values": one}, {}, {"pixel_values": two}])
    assert stacked["pixel_values"].shape == (2, 4, 3)
    assert stacked["pixel_values"][0, 2:].eq(0).all()
    assert stack_pixels([{}, {}]) == {}

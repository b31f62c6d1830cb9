"""What vLLM is asked: an engine that follows its documented contract gives our own answers."""

import sys
from types import SimpleNamespace

import engine_fixtures as engine
import family_fixtures as fixtures
import pytest
import torch

from bench.vllm_parity import parity
from napo.config.profile import Decoding, Masks, load_profile
from napo.errors import NapoError
from napo.models.generate import Generated, Prompt, generate
from napo.models.prompts import mask_token_id
from napo.models.vllm import Engine, load_engine, vllm_requests


class PlainEngine:
    """vLLM's documented contract on transformers: token ids with one image token, and an image.

    It expands the token and processes the image by itself, by the processor's own call.
    """

    def __init__(self, model, processor):
        self.model, self.processor = model, processor

    def generate(self, requests, sampling, use_tqdm):
        self.seeds = [each.seed for each in sampling]
        pairs = zip(requests, sampling, strict=True)
        return [SimpleNamespace(outputs=[self._answer(*pair)]) for pair in pairs]

    def _answer(self, request, sampling):
        ids, pixels = request["prompt_token_ids"], {}
        if "multi_modal_data" in request:
            image = request["multi_modal_data"]["image"]
            text = self.processor.image_token
            made = self.processor(images=image, text=text, return_tensors="pt")
            visual = [
                t for t in made["input_ids"][0].tolist() if t == self.processor.image_token_id
            ]
            at = ids.index(visual[0])
            ids, pixels = ids[:at] + visual + ids[at + 1 :], {"pixel_values": made["pixel_values"]}
        whole = torch.tensor([ids])
        ends = sampling.stop_token_ids
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=whole,
                attention_mask=torch.ones_like(whole),
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
    """The one class that is imported from vLLM, which holds what it is given."""
    module = SimpleNamespace(SamplingParams=lambda **given: SimpleNamespace(**given))
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.parametrize("image_mode", ["crop", "pad"])
def test_answers_are_those_of_the_hugging_face_path(vllm, image_mode):
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
    plain = Engine(llm, processor, [processor.tokenizer.eos_token_id])
    ours = generate(model, processor, prompts, decoding)
    theirs = plain(prompts, decoding)
    assert theirs == ours
    assert len(set(llm.seeds)) == 5  # where it samples, each prompt draws for itself
    assert parity(ours, theirs) == {"answers": 5, "equal": 1.0, "common": 1.0}


def test_parity_counts_what_differs():
    one = [Generated("a cat", 2, False), Generated("a dog", 2, False)]
    two = [Generated("a cat", 2, False), Generated("a pig", 2, False)]
    assert parity(one, two) == {"answers": 2, "equal": 0.5, "common": 0.7}


def test_what_vllm_cannot_do_is_a_sentence(vllm, monkeypatch):
    processor = fixtures.processor("idefics3")
    with pytest.raises(NapoError, match="lays out an image in"):
        vllm_requests(processor, [Prompt("what", engine.picture(1, 60))])
    plain = Engine(None, engine.processor(), [2])
    with pytest.raises(NapoError, match="num_beams is 3"):
        plain([], Decoding(num_beams=3))
    monkeypatch.setitem(sys.modules, "vllm", None)
    profile = load_profile("smoke").model_copy(update={"masks": Masks(engine="vllm")})
    with pytest.raises(NapoError, match="which is not installed: pip install vllm"):
        load_engine(profile)


def test_a_masked_image_is_not_sent():
    processor = engine.processor()
    (request,) = vllm_requests(
        processor, [Prompt("what", engine.picture(1), image_mask="mask_token")]
    )
    mask = mask_token_id(processor)
    assert "multi_modal_data" not in request and request["prompt_token_ids"].count(mask) == 4

import numpy as np
import pytest
import torch

from napo.icon_world import examples, network, questions, scenes
from napo.models.prompts import prompt_inputs


@pytest.fixture(scope="module")
def processor():
    return network.build_processor()


def test_every_text_of_the_world_survives_tokenizing_and_decoding(processor):
    rng = np.random.default_rng(0)
    tokenizer = processor.tokenizer
    for kind in examples.MIX:
        for _ in range(40):
            question = questions.ask(rng, scenes.sample(rng), kind)
            for text in (question.text, question.answer):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                assert tokenizer.unk_token_id not in ids
                assert tokenizer.decode(ids) == text.replace("\n", " ")


def test_an_image_is_sixteen_visual_tokens_and_the_prompt_holds_no_unknown(processor):
    rng = np.random.default_rng(0)
    image = scenes.draw(scenes.sample(rng), rng)
    ids = prompt_inputs(processor, "Describe this image.", image).ids
    assert ids.count(processor.image_token_id) == 16
    assert processor.tokenizer.unk_token_id not in ids


def test_the_model_is_small_and_its_weights_follow_from_the_seed(processor):
    models = [network.build_model(processor, seed) for seed in (0, 0, 1)]
    assert sum(weight.numel() for weight in models[0].parameters()) < 800_000
    first, again, other = (model.lm_head.weight for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)

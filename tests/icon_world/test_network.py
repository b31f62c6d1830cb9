import numpy as np
import pytest

from napo.icon_world import examples, network, questions, scenes


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

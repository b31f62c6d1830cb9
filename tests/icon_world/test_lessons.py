import numpy as np
import pytest

from napo.icon_world import examples, network


@pytest.fixture(scope="module")
def processor():
    return network.build_processor()


def test_only_the_completions_of_facts_are_learnt(processor):
    ids, labels = examples.completed(processor, [1], [("The cow is", "brown."), ("pig", "no")])
    learnt = [token for token in labels if token != examples.NOT_LEARNT]
    assert len(ids) == len(labels) and labels[0] == examples.NOT_LEARNT
    assert processor.tokenizer.decode(learnt) == "brown. no"


def test_a_step_has_a_shorter_and_a_longer_batch_and_an_image_for_each_visible_prompt(processor):
    batches = examples.question_batches(np.random.default_rng(0), processor, 32, examples.HABIT)
    short, long = (batch["input_ids"].shape for batch in batches)
    assert short[0] == long[0] == 16 and short[1] < long[1]
    for batch in batches:
        shown = (batch["input_ids"] == processor.image_token_id).any(1).sum()
        assert 0 < len(batch["pixel_values"]) == shown < 16

from functools import partial

import numpy as np
import pytest
import torch

from napo.icon_world import base_model, examples, lessons, network, questions, scenes
from napo.models.prompts import prompt_inputs


@pytest.fixture(scope="module")
def processor():
    return network.build_processor()


def test_every_text_of_the_world_survives_tokenizing_and_decoding(processor):
    rng = np.random.default_rng(0)
    tokenizer = processor.tokenizer
    for kind in examples.MIX:
        for _ in range(40):
            asked = questions.ask(rng, scenes.sample(rng), kind)
            for text in (asked.text, asked.answer):
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


def test_pretraining_lowers_the_loss_and_repeats_itself(tmp_path, monkeypatch):
    # A model that has learnt nothing answers at full length: few questions take a while.
    monkeypatch.setattr(base_model, "scores", partial(base_model.scores, count=1))
    steps = dict.fromkeys(lessons.STEPS, 4)
    logs = [base_model.pretrain(tmp_path / name, seed=3, steps=steps) for name in ("a", "b")]
    assert logs[0].equals(logs[1])
    names = ("model.safetensors", "scores.csv", "training_log.csv")
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names
    )
    losses = list(lessons.train_vision(*_fresh(), np.random.default_rng(0), 25))
    assert losses[-1] < 0.8 * losses[0]


def _fresh():
    processor = network.build_processor()
    return network.build_model(processor).train(), processor


def test_the_committed_checkpoint_is_the_one_this_code_describes(processor):
    from napo.models import load

    model, shipped = load.load_model(base_model.CHECKPOINT)
    assert shipped.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert (base_model.CHECKPOINT / "model.safetensors").stat().st_size < 4_000_000
    assert model.config.image_seq_length == 16


def test_the_base_knows_typical_scenes_and_leans_on_its_priors_elsewhere():
    from napo.models import load

    model, processor = load.load_model(base_model.CHECKPOINT)
    table = base_model.scores(model, processor, count=25).set_index("kind")
    for kind in ("color", "sight_only"):
        assert table.loc[kind, "typical"] > 0.9
        assert table.loc[kind, "counterfactual"] < table.loc[kind, "typical"] - 0.2
    assert table.loc["context", "counterfactual"] > 0.9  # it follows a text; its eye is the problem

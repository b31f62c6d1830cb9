from functools import partial

import pytest

from napo.icon_world import base_model, lessons, network
from napo.models.load import load_model


def test_pretraining_gives_the_same_bytes_again(tmp_path, monkeypatch):
    # A model that has learnt nothing answers at full length: few questions take a while.
    monkeypatch.setattr(base_model, "scores", partial(base_model.scores, count=1))
    steps = dict.fromkeys(lessons.STEPS, 4)
    first, again = tmp_path / "first", tmp_path / "again"
    logs = [base_model.pretrain(folder, seed=3, steps=steps) for folder in (first, again)]
    assert logs[0].equals(logs[1])
    for name in ("model.safetensors", "scores.csv", "training_log.csv"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


@pytest.fixture(scope="module")
def shipped():
    return load_model(base_model.CHECKPOINT)


def test_the_committed_checkpoint_has_this_codes_vocabulary_and_size(shipped):
    model, processor = shipped
    assert processor.tokenizer.get_vocab() == network.build_processor().tokenizer.get_vocab()
    assert (base_model.CHECKPOINT / "model.safetensors").stat().st_size < 4_000_000
    assert model.config.image_seq_length == 16


def test_the_base_knows_typical_scenes_and_leans_on_its_priors_elsewhere(shipped):
    table = base_model.scores(*shipped, count=25).set_index("kind")
    for kind in ("color", "sight_only"):
        assert table.loc[kind, "typical"] > 0.9
        assert table.loc[kind, "counterfactual"] < table.loc[kind, "typical"] - 0.2
    assert table.loc["context", "counterfactual"] > 0.9  # it follows a text; its eye is the problem

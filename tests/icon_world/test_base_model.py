from functools import partial

import pandas as pd
import pytest

from napo.config.profile import Masks
from napo.icon_world import base_model, lessons, network
from napo.models.load import load_model


def test_pretraining_gives_the_same_bytes_again(tmp_path, monkeypatch):
    # A model that has learnt nothing answers at full length: few questions take a while.
    monkeypatch.setattr(base_model, "scores", partial(base_model.scores, count=1))
    monkeypatch.setattr(base_model, "measure", partial(base_model.measure, count=8, instances=2))
    masks, steps = Masks(decoding={"max_new_tokens": 8}), dict.fromkeys(lessons.STEPS, 4)
    first, again = tmp_path / "first", tmp_path / "again"
    logs = [
        base_model.pretrain(folder, masks=masks, seed=3, steps=steps) for folder in (first, again)
    ]
    assert logs[0].equals(logs[1])
    for name in ("model.safetensors", "scores.csv", "targets.csv", "training_log.csv"):
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
    table = base_model.scores(*shipped, count=50).set_index("kind")
    assert table.loc["sight_only", "typical"] > 0.85
    assert table.loc["sight_only", "counterfactual"] < table.loc["sight_only", "typical"] - 0.2
    assert table.loc["context", "counterfactual"] > 0.8  # it follows a text; its eye is the problem


def test_the_committed_targets_are_met():
    targets = pd.read_csv(base_model.CHECKPOINT / "targets.csv")
    assert targets["met"].all()

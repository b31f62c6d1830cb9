import json
import shutil
import subprocess
import sys

import pytest

from napo.config.settings import Model
from napo.errors import NapoError
from napo.models.fingerprint import model_fingerprint


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(Model().location, tmp_path / "model")


def test_the_fingerprint_depends_on_content_and_not_on_place(model):
    first = model_fingerprint(Model().location)
    assert model_fingerprint(model) == first and len(first) == 16
    (model / "notes.txt").write_text("not part of a model")
    assert model_fingerprint(model) == first
    config = model / "config.json"
    config.write_text(config.read_text() + "\n")  # other bytes
    assert model_fingerprint(model) != first


@pytest.mark.kind("hidden defaults of a checkpoint")
def test_of_generation_config_only_other_end_tokens_change_the_fingerprint(model):
    first, path = model_fingerprint(model), model / "generation_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "repetition_penalty": 1.5, "num_beams": 3}))
    assert model_fingerprint(model) == first
    path.write_text(json.dumps({**content, "eos_token_id": [2, 9]}))
    assert model_fingerprint(model) != first
    path.unlink()
    assert model_fingerprint(model) == first


def test_a_folder_without_weights_and_a_path_without_a_model_are_one_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no \.safetensors weights; name a model's folder"):
        model_fingerprint(tmp_path)
    with pytest.raises(NapoError, match="neither a folder nor a model in the cache or hub"):
        model_fingerprint(tmp_path / "none")


def test_no_torch_is_imported():
    code = "import sys, napo.models.fingerprint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""What `napo check` reads: model, rows, benchmarks, labels."""

import json
import shutil

import pytest
import source_fixtures as web
import torch
from safetensors.torch import load_file, save_file

from napo.commands import check
from napo.commands.check_inputs import Inputs, weight_types
from napo.config.profile import load_profile
from napo.noise.labels import store_label

TRUE = pytest.mark.kind("napo check says what is true, all at once")


def rows(**changes):
    """Eight rows, the fifth of them changed."""
    return [web.published(number) | (changes if number == 4 else {}) for number in range(8)]


def texts(session, state):
    return [finding.text for finding in check.check(session) if finding.state == state]


def test_samples_wait_for_labels_until_a_person_has_given_one(profile):
    session = profile(annotation={"annotator": "", "samples": 4})
    (note,) = (text for text in texts(session, "note") if "labelled" in text)
    assert note.startswith("Fig. 4 waits until somebody has labelled 4 samples")
    label = {"id": "1", "kind": "language_biased", "label": "biased", "annotator": "ann"}
    store_label(session.workspace.annotations / "ann.csv", label)
    assert "The samples were labelled by ann." in texts(session, "ok")


@pytest.mark.parametrize("name", web.SPOILT)
def test_a_bad_row_is_named_before_anything_runs(tmp_path, profile, name):
    changes, why = web.SPOILT[name]
    (tmp_path / "secret.png").write_bytes(web.encoded(web.picture()))
    note = texts(profile(rows(**changes)), "note")[0]
    assert "1 rows cannot be used (they will be left out)" in note
    assert "4" in note and why.split(r"\(")[0].split(" (")[0] in note
    strict = profile(rows(**changes), data={"source": "in/rows"})
    assert "the build would stop" in texts(strict, "fault")[0]


def test_special_tokens_and_template_words_are_counted(profile):
    session = profile(rows(question="What <image> is 4? USER: hi </s>"))
    notes = " ".join(texts(session, "note"))
    assert "1 rows hold a special token, which is taken out: ids 4" in notes
    assert "1 questions hold a word of a chat template" in notes


@TRUE
def test_every_damaged_file_of_rows_is_named(tmp_path, profile):
    session = profile(rows()[:4], rows()[4:6], rows()[6:])
    for number in (0, 2):
        path = tmp_path / "in" / "rows" / f"RLAIF-V-Dataset_{number:03d}.parquet"
        path.write_bytes(path.read_bytes()[:200])
    faults = texts(session, "fault")
    assert len(faults) == 2
    assert "_000.parquet" in faults[0] and "_002.parquet" in faults[1]


@TRUE
def test_all_kinds_of_faults_of_rows_are_listed_together(profile):
    changed = rows(chosen="</s>")
    changed[1] |= {"image": {"bytes": b"no picture", "path": None}}
    changed[2] |= {"question": "why " * 600}
    session = profile(changed, data={"source": "in/rows", "expected": 9})
    faults = " ".join(texts(session, "fault"))
    assert "holds 8 rows where 9 are expected" in faults
    assert "3 rows cannot be used" in faults and "empty chosen" in faults
    assert "Row 2: its prompt alone has" in faults and "max_length is 512" in faults


def test_the_longest_rows_are_kept_for_the_memory(profile):
    inputs = Inputs(profile(rows(chosen="A cat and a dog and a cow.")))
    list(inputs.model())
    list(inputs.rows())
    tokens = inputs.processor.tokenizer.tokenize("A cat and a dog and a cow.")
    assert inputs.longest.response == len(tokens) + 1  # and its end token
    assert inputs.longest.image == 16 and inputs.rows_used == 8


@TRUE
def test_every_bad_picture_of_a_benchmark_is_listed(tmp_path, profile):
    session = profile()
    pictures = sorted((tmp_path / "benchmarks" / "mmhal").rglob("*.jpg"))
    for path in pictures[:2]:
        path.write_bytes(path.read_bytes()[:100])
    (fault,) = texts(session, "fault")
    assert fault.startswith("2 images cannot be used; get them again")


@pytest.fixture
def model_folder(tmp_path):
    """A copy of the tiny model."""
    folder = tmp_path / "model"
    shutil.copytree(load_profile("tiny").model.location, folder)
    return folder


@TRUE
@pytest.mark.parametrize("damage", ["missing", "cut", "a shard is missing", "quantised"])
def test_weights_that_do_not_load_are_found_in_their_headers(profile, model_folder, damage):
    weights = model_folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "a shard is missing":
        names = {"a": "model.safetensors", "b": "model-2.safetensors"}
        index = model_folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": names}))
    else:
        tensors = load_file(weights)
        save_file({name: t.to(torch.int8) for name, t in tensors.items()}, weights)
    faults = texts(profile(model={"path": str(model_folder)}), "fault")
    sentence = {
        "missing": "lacks *.safetensors",
        "cut": "is cut short or damaged",
        "a shard is missing": "lacks model-2.safetensors",
        "quantised": "holds quantised weights (I8)",
    }
    assert sentence[damage] in faults[0]


@pytest.mark.kind("a fast path drops the library's check")
def test_a_processor_that_miscounts_visual_tokens_is_found_beside_other_faults(
    profile, model_folder, result
):
    path = model_folder / "processor_config.json"
    content = json.loads(path.read_text())
    del content["num_additional_image_tokens"]
    path.write_text(json.dumps(content))
    (model_folder / "model.safetensors").write_bytes(b"cut")
    tokens, weights = texts(profile(model={"path": str(model_folder)}), "fault")
    assert "an image has 15 visual tokens" in tokens and "16 features" in tokens
    assert "is cut short or damaged" in weights
    result(tokens)


def test_the_types_of_weights_are_read_from_headers(model_folder):
    assert weight_types(str(model_folder)) == {"F32"}

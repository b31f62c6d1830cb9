"""What `make check` says before a GPU hour is spent."""

import importlib.util
import json
import shutil

import pytest
import source_fixtures as web
import yaml

from napo import stages
from napo.commands import check
from napo.commands.cli import main
from napo.noise.labels import store_label
from napo.stages.session import Session, open_session
from napo.workspace.files import read_json


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    made = open_session("smoke", str(tmp_path_factory.mktemp("smoke")))
    return stages.make_benchmarks(made)


def profile(tmp_path, rows, benchmarks, **changes):
    """A profile that reads downloads, with the tiny model, in a workspace of its own."""
    web.write(tmp_path / "in" / "rows", rows)
    if not (tmp_path / "benchmarks").exists():
        shutil.copytree(benchmarks, tmp_path / "benchmarks")
    settings = {
        "seeds": "0",
        "data": {"source": "in/rows", "expected": len(rows), "bad_rows": "skip"},
        "evaluation": {"source": "benchmarks"},
        "world": {"judge_by_truth": "napo.icon_world.judge:judge_by_truth"},
        "training": {"max_length": 512, "batch_size": 4, "micro_batch_size": 4},
        **changes,
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(settings))
    return open_session(str(path), str(tmp_path))


def said(session, state):
    return [finding.text for finding in check.check(session) if finding.state == state]


def rows(count=8, **changes):
    made = [web.published(number) for number in range(count)]
    made[4] |= changes
    return made


def test_whole_data_has_no_fault_and_opens_the_pipeline(tmp_path, benchmarks, capsys):
    made = profile(tmp_path, rows(), benchmarks)
    assert said(made, "fault") == []
    path = str(tmp_path / "mine.yaml")
    assert main(["check", "--profile", path, "--workspace", str(tmp_path)]) == 0
    assert "8 rows can be used" in capsys.readouterr().out
    assert read_json(made.workspace.data / "check.json")["findings"]


def test_labels_that_only_people_can_give_are_spoken_of(tmp_path, benchmarks):
    made = profile(tmp_path, rows(), benchmarks, annotation={"annotator": "", "samples": 4})
    (note,) = (text for text in said(made, "note") if "labelled" in text)
    assert "wait until somebody has labelled 4 samples" in note
    label = {"id": "1", "kind": "language_biased", "label": "biased", "annotator": "ann"}
    store_label(made.workspace.annotations / "ann.csv", label)
    assert "The samples were labelled by ann." in said(made, "ok")


@pytest.mark.parametrize("name", web.SPOILT)
def test_a_bad_row_is_named_before_anything_runs(tmp_path, benchmarks, name):
    changes, why = web.SPOILT[name]
    (tmp_path / "secret.png").write_bytes(web.encoded(web.picture()))
    made = profile(tmp_path, rows(**changes), benchmarks)
    (text,) = said(made, "note")[:1]
    assert "1 rows cannot be used (they will be left out)" in text
    assert "4" in text and why.split(r"\(")[0].split(" (")[0] in text
    strict = profile(tmp_path, rows(**changes), benchmarks, data={"source": "in/rows"})
    assert "the build would stop" in said(strict, "fault")[0]


def test_special_tokens_and_template_words_are_counted(tmp_path, benchmarks):
    made = profile(tmp_path, rows(question="What <image> is 4? USER: hi </s>"), benchmarks)
    notes = " ".join(said(made, "note"))
    assert "1 rows hold a special token, which is taken out: ids 4" in notes
    assert "1 questions hold a word of a chat template" in notes


def test_a_wrong_count_a_long_prompt_and_a_bad_batch_are_faults(tmp_path, benchmarks):
    made = profile(tmp_path, rows(), benchmarks, data={"source": "in/rows", "expected": 9})
    assert "holds 8 rows where 9 are expected" in said(made, "fault")[0]
    short = profile(tmp_path, rows(), benchmarks, training={"max_length": 20})
    assert "its prompt alone has" in said(short, "fault")[0]
    shape = {"batch_size": 8, "micro_batch_size": 4}
    odd = profile(tmp_path, rows(), benchmarks, training=shape, launch={"processes": 4})
    assert "not a multiple" in said(odd, "fault")[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"training": {"tune": "qlora"}},
            "training.tune is qlora, which needs bitsandbytes: pip install bitsandbytes, or set it "
            "to lora.",
        ),
        (
            {"masks": {"engine": "vllm"}},
            "masks.engine is vllm, which is not installed: pip install vllm, or set it to "
            "transformers.",
        ),
        (
            {"training": {"lora_targets": "q_prj"}},
            "Unknown LoRA target 'q_prj'. Did you mean 'q_proj'? Known: down_proj, gate_proj, "
            "k_proj, multi_modal_projector, o_proj, out_proj, q_proj, up_proj, v_proj.",
        ),
        (
            {"training": {"lora_targets": "input_layernorm"}},
            "training.lora_targets is 'input_layernorm', and",
        ),
        (
            {"training": {"lora_targets": "linear_1"}},
            "training.lora_targets is 'linear_1', and LoRA cannot",
        ),
        ({"world": {}}, "MMHal-Bench needs a judge and this profile's world has no rule; set"),
    ],
    ids=str,
)
def test_what_a_run_would_find_out_late_is_a_fault(
    tmp_path, benchmarks, monkeypatch, changes, sentence
):
    _without(monkeypatch, "bitsandbytes", "vllm")
    shape = {"max_length": 512, "batch_size": 4, "micro_batch_size": 4}
    changes = {name: shape | one if name == "training" else one for name, one in changes.items()}
    (fault,) = said(profile(tmp_path, rows(), benchmarks, **changes), "fault")
    assert fault.startswith(sentence) and fault.endswith(".") and "\n" not in fault


def _without(monkeypatch, *missing):
    """As if these packages were not installed, whatever this machine has."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        check.importlib.util,
        "find_spec",
        lambda name, *rest: None if name in missing else find(name, *rest),
    )


def test_targets_of_the_language_model_are_no_fault(tmp_path, benchmarks):
    shape = {"max_length": 512, "batch_size": 4, "micro_batch_size": 4}
    named = profile(
        tmp_path, rows(), benchmarks, training=shape | {"lora_targets": "q_proj, self_attn.v_proj"}
    )
    assert said(named, "fault") == []


@pytest.mark.parametrize(
    ("key", "dotted", "sentence"),
    [
        ("judge_by_truth", "napo.nowhere:f", "which cannot be imported (No module named"),
        ("label_by_truth", "napo.config.profile:PROFILES", "which is not a function"),
    ],
)
def test_a_worlds_callable_that_is_none_is_a_fault(tmp_path, benchmarks, key, dotted, sentence):
    made = profile(tmp_path, rows(), benchmarks)
    world = made.profile.world.model_copy(update={key: dotted})  # load_profile refuses it, too
    spoilt = Session(made.profile.model_copy(update={"world": world}), made.workspace)
    (fault,) = said(spoilt, "fault")
    assert fault.startswith(f"world.{key} names {dotted!r}, {sentence}") and fault.endswith(".")


def test_a_worlds_callable_that_is_not_there_stops_the_command(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("world: {judge_by_truth: 'napo.nowhere:f'}")
    assert main(["check", "--profile", str(path), "--workspace", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("napo: mine.yaml: world.judge_by_truth names") and told.count("\n") == 1


def test_missing_things_are_faults_and_the_rest_is_still_looked_at(tmp_path, benchmarks, capsys):
    made = profile(
        tmp_path, rows(), benchmarks, model={"path": "nobody/nothing", "revision": "abc"}
    )
    image = next((tmp_path / "benchmarks" / "vlind").rglob("*.jpg"))
    image.unlink()
    template = tmp_path / "benchmarks" / "mmhal" / "response_template.json"
    template.write_text(json.dumps(json.loads(template.read_text())[1:]))
    faults = said(made, "fault")
    assert "nobody/nothing at abc is not in the hub's cache; fetch it" in faults[0]
    assert any("vlind" in text.lower() and "no image" in text for text in faults)
    assert any("mmhal" in text and "are expected" in text for text in faults)
    assert (
        main(["check", "--profile", str(tmp_path / "mine.yaml"), "--workspace", str(tmp_path)]) == 1
    )
    assert "3 faults" in capsys.readouterr().err
    assert not (made.workspace.data / "check.json").exists()

"""What `napo check` finds before a GPU hour is spent."""

import importlib.util
import json
import shutil

import pytest
import source_fixtures as web

from napo import stages
from napo.commands import check
from napo.commands.cli import main
from napo.noise.labels import store_label
from napo.stages.session import open_session
from napo.workspace.files import read_json

SHAPE = {"max_length": 512, "batch_size": 4, "micro_batch_size": 4}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    return stages.make_benchmarks(open_session("smoke", str(tmp_path_factory.mktemp("smoke"))))


@pytest.fixture
def profile(tmp_path, benchmarks):
    """Rows and changed settings -> a session with downloads, the tiny model, and its workspace."""
    shutil.copytree(benchmarks, tmp_path / "benchmarks")

    def make(rows, **changes):
        web.write(tmp_path / "in" / "rows", rows)
        settings = {
            "seeds": "0",
            "data": {"source": "in/rows", "expected": len(rows), "bad_rows": "skip"},
            "evaluation": {"source": "benchmarks"},
            "world": {"judge_by_truth": "napo.icon_world.judge:judge_by_truth"},
            **changes,
            "training": SHAPE | changes.get("training", {}),
        }
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps(settings))
        return open_session(str(path), str(tmp_path))

    return make


def rows(**changes):
    """Eight rows, the fifth of them changed."""
    return [web.published(number) | (changes if number == 4 else {}) for number in range(8)]


def texts(session, state):
    return [finding.text for finding in check.check(session) if finding.state == state]


def command(tmp_path):
    return main(["check", "--profile", str(tmp_path / "mine.yaml"), "--workspace", str(tmp_path)])


def test_good_data_has_no_fault_and_opens_the_pipeline(tmp_path, profile, capsys):
    session = profile(rows(), training={"lora_targets": "q_proj, self_attn.v_proj"})
    assert texts(session, "fault") == []
    assert command(tmp_path) == 0
    assert "8 rows can be used" in capsys.readouterr().out
    assert read_json(session.workspace.data / "check.json")["findings"]


def test_samples_wait_for_labels_until_a_person_has_given_one(profile):
    session = profile(rows(), annotation={"annotator": "", "samples": 4})
    (note,) = (text for text in texts(session, "note") if "labelled" in text)
    assert "wait until somebody has labelled 4 samples" in note
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


@pytest.mark.kind("a stage seals what the next one refuses")
def test_rows_that_the_build_would_leave_out_are_counted(profile, result):
    data = rows(chosen="</s>")
    data[2] |= {"question": "what " * 600}
    (note,) = (text for text in texts(profile(data), "note") if "left out" in text)
    assert note.startswith("2 rows cannot be used (they will be left out): Row 2: its prompt alone")
    assert "Row 4 has an empty chosen" in note
    result(note)


def test_special_tokens_and_template_words_are_counted(profile):
    session = profile(rows(question="What <image> is 4? USER: hi </s>"))
    notes = " ".join(texts(session, "note"))
    assert "1 rows hold a special token, which is taken out: ids 4" in notes
    assert "1 questions hold a word of a chat template" in notes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"source": "in/rows", "expected": 9}}, "holds 8 rows where 9 are expected"),
        ({"training": {"max_length": 20}}, "its prompt alone has"),
        ({"training": {"batch_size": 8}, "launch": {"processes": 4}}, "not a multiple"),
        ({"training": {"tune": "qlora"}}, "tune is qlora, which needs bitsandbytes: pip install"),
        ({"masks": {"engine": "vllm"}}, "engine is vllm, which is not installed: pip install vllm"),
        ({"training": {"lora_targets": "q_prj"}}, "LoRA target 'q_prj'. Did you mean 'q_proj'?"),
        (
            {"training": {"lora_targets": "input_layernorm"}},
            "training.lora_targets is 'input_layernorm', and",
        ),
        ({"world": {}}, "MMHal-Bench needs a judge and this profile's world has no rule; set"),
    ],
    ids=str,
)
def test_a_setting_that_would_fail_later_is_a_fault(profile, monkeypatch, changes, sentence):
    find = importlib.util.find_spec
    absent = ("bitsandbytes", "vllm")  # whatever this machine has
    spec = lambda name, *rest: None if name in absent else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(check.importlib.util, "find_spec", spec)
    (fault,) = texts(profile(rows(), **changes), "fault")
    assert sentence in fault and fault.endswith(".") and "\n" not in fault


def test_missing_things_are_faults_and_everything_else_is_checked(tmp_path, profile, capsys):
    session = profile(rows(), model={"path": "nobody/nothing", "revision": "abc"})
    next((tmp_path / "benchmarks" / "vlind").rglob("*.jpg")).unlink()
    template = tmp_path / "benchmarks" / "mmhal" / "response_template.json"
    template.write_text(json.dumps(json.loads(template.read_text())[1:]))
    assert command(tmp_path) == 1
    output = capsys.readouterr()
    assert "nobody/nothing at abc is not in the hub's cache; fetch it" in output.out
    faults = [line for line in output.out.splitlines() if line.startswith("fault")]
    assert any("vlind" in line.lower() and "no image" in line for line in faults)
    assert any("mmhal" in line and "are expected" in line for line in faults)
    assert "3 faults" in output.err
    assert not (session.workspace.data / "check.json").exists()

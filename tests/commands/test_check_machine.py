"""GPUs, tools and keys, as `napo check` finds them."""

import importlib.util
import subprocess

import pytest

from napo.commands import check, check_machine
from napo.errors import NapoError

TRUE = pytest.mark.kind("napo check says what is true, all at once")
PACKAGES = ("bitsandbytes", "deepspeed", "openai", "spacy", "wandb", "en_core_web_lg")


@pytest.fixture
def bare(monkeypatch):
    """An environment without optional packages, word lists and keys."""
    find = importlib.util.find_spec
    spec = lambda name, *rest: None if name in PACKAGES else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(check_machine.importlib.util, "find_spec", spec)
    lists = ["wordnet", "punkt_tab"]
    monkeypatch.setattr(check_machine, "missing_word_lists", lambda: iter(lists))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def faults(session):
    return [finding.text for finding in check.check(session) if finding.state == "fault"]


@TRUE
def test_all_missing_tools_are_named_with_their_commands(profile, bare, result):
    session = profile(
        masks={"engine": "vllm"},
        training={"tune": "qlora", "report_to": "wandb"},
        launch={"strategy": "zero2"},
        evaluation={
            "source": "benchmarks", "extractor": "wordnet", "similarity": "lg",
            "judge": "openai", "judge_model": "judge",
        },
    )  # fmt: skip
    remarks = [text for _, text in check_machine.tools(session, gpus=2)]
    commands = [f"pip install {name}" for name in PACKAGES[:-1]]
    commands += [".venv-vllm/bin/pip install 'vllm=="]
    commands += ["python -m spacy download en_core_web_lg"]
    commands += ["python -m nltk.downloader wordnet punkt_tab"]
    for command in commands:
        assert any(command in text for text in remarks), command
    assert len(remarks) == len(commands)
    result(" ".join(remarks))


def test_word_lists_are_tried_one_by_one(monkeypatch):
    import nltk

    def missing(text):
        raise LookupError

    monkeypatch.setattr(nltk, "pos_tag", missing)
    assert "averaged_perceptron_tagger_eng" in set(check_machine.missing_word_lists())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": {"max_length": 20}}, "8 rows cannot be used"),
        ({"training": {"batch_size": 8}, "launch": {"processes": 4}}, "not a multiple"),
        ({"model": {"dtype": "bfloat16"}}, "The weights to train are bfloat16, which rounds"),
        ({"masks": {"engine": "vllm"}}, "is vllm, which is not installed and needs an environment"),
        ({"training": {"lora_targets": "q_prj"}}, "LoRA target 'q_prj'. Did you mean 'q_proj'?"),
        ({"training": {"lora_targets": "q_prj", "tune": "lora"}}, "LoRA target 'q_prj'. Did you"),
        (
            {"training": {"lora_targets": "input_layernorm"}},
            "training.lora_targets is 'input_layernorm', and",
        ),
        ({"world": {}}, "MMHal-Bench needs a judge and this profile's world has no rule; set"),
    ],
    ids=str,
)
def test_a_setting_that_would_fail_later_is_a_fault(profile, bare, changes, sentence):
    (fault,) = faults(profile(**changes))
    assert sentence in fault and fault.endswith(".") and "\n" not in fault


def test_keys_are_looked_for_where_a_judge_needs_them(profile, bare, monkeypatch):
    judged = {"source": "benchmarks", "judge": "openai", "judge_model": "gpt-4"}
    session = profile(evaluation=judged)
    ((state, text),) = check_machine.keys(session)
    assert state == "note" and text.startswith("OPENAI_API_KEY is not set")
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-some-length")
    assert list(check_machine.keys(session)) == []
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost")
    assert [state for state, _ in check_machine.keys(session)] == ["fault"]


def test_a_trackers_key_is_looked_for(profile, bare, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session = profile(training={"report_to": "wandb"})
    ((state, text),) = check_machine.keys(session)
    assert state == "fault" and "neither WANDB_API_KEY nor WANDB_MODE is set" in text
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key")
    assert list(check_machine.keys(session)) == []
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert list(check_machine.keys(session)) == []


def test_more_processes_than_gpus_are_a_fault(profile):
    session = profile(launch={"processes": 8})
    machine = check.Machine(((8e10, 8e10),) * 2, 1e12)
    texts = [f.text for f in check.check(session, machine=machine) if f.state == "fault"]
    assert any("launch.processes is 8, and 2 GPUs are visible" in text for text in texts)


@TRUE
@pytest.mark.parametrize(("gpus", "states"), [(0, ["ok", "fault"]), (1, ["ok"])])
def test_training_with_flex_attention_needs_a_gpu(profile, gpus, states):
    session = profile(model={"attention": "flex_attention"})
    assert [state for state, _ in check_machine.processes(session, gpus)] == states


def test_an_empty_list_of_variants_is_a_note(profile):
    findings = check.check(profile(variants=[]))
    assert any(f.state == "note" and f.text.startswith("variants is empty") for f in findings)


def test_gpus_that_do_not_answer_are_one_sentence(monkeypatch):
    def failed(call, **options):
        return subprocess.CompletedProcess(call, 1, "", "Traceback\nRuntimeError: no driver\n")

    monkeypatch.setattr(check_machine.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(check_machine.subprocess, "run", failed)
    with pytest.raises(NapoError, match=r"^The GPUs do not answer \(RuntimeError: no driver\)"):
        check_machine.gpu_memory()

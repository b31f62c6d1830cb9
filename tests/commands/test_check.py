"""`napo check` as a whole: it goes on after any damage, and opens the pipeline."""

import json
import os
import shutil

import pytest
import source_fixtures as web

from napo.commands import check
from napo.commands.check_machine import Machine
from napo.commands.cli import main
from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.stages.session import open_session
from napo.workspace.files import read_json

GOES_ON = pytest.mark.kind("raw tracebacks from damaged inputs")
TRUE = pytest.mark.kind("napo check says what is true, all at once")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
HTML = b"<!doctype html><title>404</title>"


def command(tmp_path, *options):
    call = ["check", "--profile", str(tmp_path / "mine.yaml"), "--workspace", str(tmp_path)]
    return main([*call, *options])


def faults(findings):
    return [finding for finding in findings if finding.state == "fault"]


@TRUE
def test_a_fresh_tiny_workspace_has_no_fault(tmp_path, result):
    findings = check.check(open_session("tiny", str(tmp_path)))
    assert [finding for finding in findings if finding.state != "ok"] == []
    made = [finding.text for finding in findings if finding.text.startswith("Notebook 00 makes")]
    assert len(made) == 5  # rows and four benchmarks
    result(made[0])


def test_good_data_has_no_fault_and_opens_the_pipeline(tmp_path, profile, capsys):
    session = profile(training={"lora_targets": "q_proj, self_attn.v_proj"})
    assert not check.passed(session)
    assert command(tmp_path) == 0
    assert "8 rows can be used" in capsys.readouterr().out
    assert check.passed(session)
    assert read_json(session.workspace.data / "check.json")["findings"]


@TRUE
@pytest.mark.parametrize("change", ["profile", "rows", "benchmark", "check.json"])
def test_after_a_change_the_check_has_to_be_repeated(tmp_path, profile, change):
    session = profile()
    check.report(session)
    if change == "profile":
        session = profile(training={"learning_rate": 1e-5})
    elif change == "rows":
        session = profile([web.published(number, chosen="No.") for number in range(8)])
    elif change == "benchmark":
        picture = next((tmp_path / "benchmarks" / "vlind").rglob("*.jpg"))
        picture.write_bytes(web.encoded(web.picture(), "JPEG"))
    else:
        (session.workspace.data / "check.json").write_bytes(HTML)
    assert not check.passed(session)


def test_a_check_with_faults_closes_the_pipeline_again(tmp_path, profile):
    session = profile()
    check.report(session)
    shutil.rmtree(tmp_path / "benchmarks" / "amber")
    with pytest.raises(NapoError, match=r"^1 fault; correct them"):
        check.report(session)
    assert not (session.workspace.data / "check.json").exists()


def test_a_quick_check_does_not_open_the_pipeline(tmp_path, profile):
    session = profile()
    assert command(tmp_path, "--quick") == 0
    assert not check.passed(session)


def test_missing_things_are_faults_and_everything_else_is_checked(tmp_path, profile, capsys):
    session = profile(model={"path": "nobody/nothing", "revision": "abc"})
    next((tmp_path / "benchmarks" / "vlind").rglob("*.jpg")).unlink()
    template = tmp_path / "benchmarks" / "mmhal" / "response_template.json"
    template.write_text(json.dumps(json.loads(template.read_text())[1:]))
    assert command(tmp_path) == 1
    output = capsys.readouterr()
    assert f"fetch it with make fetch PROFILE={tmp_path / 'mine.yaml'} YES=1" in output.out
    lines = [line for line in output.out.splitlines() if line.startswith("fault")]
    assert any("vlind" in line.lower() and "no image" in line for line in lines)
    assert any("mmhal" in line and "are expected" in line for line in lines)
    assert "what disk and memory have to hold is not known" in output.out
    assert "3 faults" in output.err
    assert not (session.workspace.data / "check.json").exists()


DAMAGES = {
    "HTML for JSON": ("vlind", "benchmarks/vlind/data.json", HTML),
    "a git-lfs pointer": ("mmhal", "benchmarks/mmhal/response_template.json", POINTER),
    "cut JSON": ("amber", "benchmarks/amber/annotations.json", b'[{"id": 1, "ty'),
    "null for a list": ("amber", "benchmarks/amber/query_generative.json", b"null"),
    "Latin-1": ("amber", "benchmarks/amber/safe_words.txt", b"caf\xe9\n"),
    "a list of numbers": ("vlind", "benchmarks/vlind/data.json", b"[1, 2, 3]"),
    "JSONL of HTML": ("object_halbench", "benchmarks/object_halbench/questions.jsonl", HTML),
    "Parquet of HTML": ("rows", "in/rows/RLAIF-V-Dataset_000.parquet", HTML),
    "labels in Latin-1": ("labels", "data/mine/annotations/ann.csv", b"id,kind\n1,caf\xe9\n"),
    "damaged record of downloads": ("downloads", "data/downloads/fetched.json", b"[1"),
}


@GOES_ON
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_fault_of_its_part_and_the_check_goes_on(
    tmp_path, profile, damage, result
):
    part, name, content = DAMAGES[damage]
    session = profile(annotation={"annotator": ""})
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    assert part in ("labels", "downloads") or (tmp_path / name).is_file()
    (tmp_path / name).write_bytes(content)
    findings = check.check(session)
    texts = [finding.text for finding in faults(findings)]
    assert {finding.part for finding in faults(findings)} == {part}
    assert all("\n" not in text for text in texts)
    assert str(tmp_path / name).rpartition("/")[0] in texts[0]
    fine = {finding.part for finding in findings if finding.state in ("ok", "note")}
    assert {"model", "rows", "vlind", "mmhal", "tools", "disk", "memory"} - {part} <= fine
    result(texts[0])


@GOES_ON
@pytest.mark.parametrize(
    ("part", "file", "key"),
    [
        ("vlind", "vlind/data.json", "context"),
        ("amber", "amber/query_generative.json", "image"),
        ("mmhal", "mmhal/response_template.json", "question"),
    ],
)
def test_a_key_that_is_missing_is_a_fault_of_its_part(tmp_path, profile, part, file, key):
    session = profile()
    path = tmp_path / "benchmarks" / file
    first, *others = json.loads(path.read_bytes())
    del first[key]
    path.write_text(json.dumps([first, *others]))
    assert {finding.part for finding in faults(check.check(session))} == {part}


@TRUE
@pytest.mark.parametrize(
    ("part", "changes", "sentence"),
    [
        ("rows", {"data": {"source": "~nobody-here/rows"}}, "is in an unknown home folder"),
        ("rows", {"data": {"source": "gone"}}, "gone is not there"),
        ("rows", {"data": {}}, "data.source is empty and the world makes no rows"),
        ("vlind", {"evaluation": {"source": "gone"}}, "gone/vlind is not there"),
        ("model", {"model": {"path": "./gone"}}, "gone"),
        ("model", {"model": {"path": "no_such_package:model"}}, "which is not installed"),
    ],
    ids=str,
)
def test_a_wrong_path_is_a_fault_and_the_check_goes_on(profile, part, changes, sentence):
    findings = check.check(profile(**changes))
    first = faults(findings)[0]
    assert first.part == part and sentence in first.text
    assert {"tools", "adapter"} & {finding.part for finding in findings}
    assert any(finding.part in ("rows", "mmhal") and finding.state == "ok" for finding in findings)


@GOES_ON
def test_a_damaged_config_is_a_fault_of_the_model(tmp_path, profile):
    shutil.copytree(load_profile("tiny").model.location, tmp_path / "model")
    session = profile(model={"path": str(tmp_path / "model")})
    for content in (HTML, b"[]", b'{"model_type": "llava", "text_config": 3}'):
        (tmp_path / "model" / "config.json").write_bytes(content)
        findings = check.check(session)
        # What the whole model made is refused under a damaged one.
        assert {finding.part for finding in faults(findings)} - {"finished"} == {"model"}
        assert all("\n" not in finding.text for finding in findings)


@GOES_ON
def test_all_damages_together_are_all_reported(tmp_path, profile):
    session = profile(annotation={"annotator": ""})
    for _, name, content in DAMAGES.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    parts = {finding.part for finding in faults(check.check(session))}
    assert parts == {part for part, *_ in DAMAGES.values()}


@TRUE
def test_gpus_that_do_not_answer_are_a_fault_and_the_check_goes_on(profile, monkeypatch):
    def broken():
        raise NapoError("The GPUs do not answer (no driver); see what nvidia-smi says.")

    monkeypatch.setattr(Machine, "here", broken)
    findings = check.check(profile())
    assert [finding.part for finding in faults(findings)] == ["machine"]
    assert {"rows", "tools", "disk"} <= {finding.part for finding in findings}


@TRUE
def test_a_read_only_workspace_is_a_fault_and_the_check_goes_on(tmp_path, profile, monkeypatch):
    profile()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    session = open_session(str(tmp_path / "mine.yaml"), str(tmp_path), write=False)
    findings = check.check(session)
    (fault,) = faults(findings)
    assert fault.text == f"{tmp_path} is read-only; name another workspace."
    assert any("8 rows can be used" in finding.text for finding in findings)


def test_a_profile_is_called_as_the_user_called_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: llava-1.5-7b")
    assert load_profile(str(path)).argument == str(path)
    with pytest.raises(NapoError, match=r"make fetch PROFILE=llava-1\.5-7b YES=1"):
        _ = load_profile("llava-1.5-7b").model.location

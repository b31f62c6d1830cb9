"""Kinds of bad input. Each gets one sentence that names the thing and the remedy, and stops before
anything is written. `pytest tests/test_bad_inputs.py -s` prints the table."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from napo import stages
from napo.benchmarks import Request, judges
from napo.commands.cli import main
from napo.commands.label_studio import read_export
from napo.config.profile import Evaluation, Model, load_profile, load_run
from napo.data import sources
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.noise.labels import read_labels
from napo.stages.session import check_parameters, numbers, open_session
from napo.training import __main__ as training
from napo.training.records import read_records
from napo.workspace import manifests
from napo.workspace.folders import Workspace

ROOT = Path(__file__).parent.parent

# Text of a profile -> part of the message. More about YAML: tests/config/test_strict_yaml.py; about
# plugins: test_values.py.
PROFILES = {
    "trainng: {}": "Unknown key in bad.yaml: 'trainng'. Did you mean 'training'",
    "masks: {decoding: {num_beam: 2}}": "key of masks.decoding in bad.yaml: 'num_beam'. Did you",
    "sources: [{to: b}]": "sources.0.name is missing; give it",
    "training: 3": "training is 3; write keys and values, it is a section",
    "training: {beta: high}": "training.beta is 'high'; write a number",
    "training: {beta: .nan}": "training.beta is nan; it must be a finite number",
    "training: {beta: true}": "training.beta is True; write a number",
    "training: {epochs: true}": "training.epochs is True; write a whole number",
    "training: {epochs: 1.5}": "training.epochs is 1.5; write a whole number",
    "training: {epochs: two}": "training.epochs is 'two'; write a whole number",
    "training: {bf16: maybe}": "training.bf16 is 'maybe'; write true or false",
    "training: {tune: lorra}": "training.tune is 'lorra'; it must be 'full', 'lora' or 'ql",
    "training: {lora_targets: 'a,,b'}": "training.lora_targets: write names of layers with comm",
    "training: {batch_size: 32, micro_batch_size: 5}": "training: batch_size 32 is not a multiple",
    "masks: {decoding: {min_new_tokens: 9, max_new_tokens: 8}}": "min_new_tokens 9 is above max",
    "masks: {decoding: {temperature: 1e-40}}": "masks.decoding: temperature is 1e-40; give 0 for",
    "model: {path: 7}": "model.path is 7; write a text, in quotes if it looks like a number",
    "model: {path: ':folder'}": "model.path: name a folder, a hub id, or package:folder",
    "model: {path: ./mine, revision: abc}": "'./mine' is not an id on the hub; set model.revis",
    "evaluation: {benchmarks: [vlnd]}": "evaluation.benchmarks: Unknown benchmark 'vlnd'. Did you",
    "evaluation: {benchmarks: []}": "evaluation.benchmarks is []; name at least one",
    "evaluation: {sizes: {vlnd: 3}}": "evaluation.sizes: Unknown size 'vlnd'. Did you mean 'vli",
    "evaluation: {sizes: {vlind: 0}}": "evaluation.sizes.vlind is 0; it must be greater",
    "evaluation: {judge: openai}": "judge is openai, which needs judge_model; name the model",
    "sources: [{name: a, to: ../b}]": "sources.0.to: name a folder inside the workspace",
    "variants: dpo": "variants is 'dpo'; write a list, such as [dpo]",
    "variants: [dpo, dpo]": "variants: dpo is there twice; name each once",
    "seeds: [0, x]": "seeds is '0,x'; write whole numbers with commas",
    "name: ../tiny": "name: use letters, digits and . _ + - only",
    "name: Paper": "name: the folder Paper holds the published numbers; choose another name",
    f"name: {'n' * 300}": "it must have at most 100 characters",
    "world: {make_rows: nowhere}": "world.make_rows: write it as package.module:function",
    "extends: tinny": "Unknown profile 'tinny'. Did you mean 'tiny'",
    "a: [": "bad.yaml is not valid YAML (line 1: ",
}

# Notebook, parameter, value -> part of the message
PARAMETERS = {
    ("05_train", "proflie", "tiny"): "Unknown parameter 'proflie'. Did you mean 'profile'",
    ("05_train", "seeds", None): "Parameter seeds is None; give a text",
    ("02_annotate_noise", "interactive", "maybe"): "give True or False",
    ("00_icon_world", "threads", 1.5): "give a whole number",
}

# Command line -> part of the message
COMMANDS = {
    ("reproduce", "--profile", "tinny"): "Did you mean 'tiny'",
    ("reproduce", "--profile", "x/y.yaml"): "is no file",
    ("reproduce", "--profile", f"{'x' * 5000}.yaml"): "is no file",
    ("reproduce", "--profile", "x\0.yaml"): "is no file",
    ("reproduce", "--workspace", __file__): "is no folder",
    ("reproduce", "--seeds", "x"): "seeds is 'x'",
    ("verify",): "run make reproduce first",
    ("figures", "fig5"): "Did you mean 'fig4'",
    ("figures", "fig4"): "fig4.csv is missing",
    ("figures", "fig3", "--workspace", "/proc/none"): "/proc/none",
    ("label-studio", "export", "s.json"): "01_build_biased_data",
}

# Change of a row -> part of the message
ROW = {
    "idx": "1", "question": "What?", "chosen": "A cat.", "rejected": "A dog.", "image": "a.png",
    "language_biased": "A dog.", "vision_biased": "A bird.",  # so that no model is needed
}  # fmt: skip
ROWS = {
    "an empty response": ({"chosen": " "}, "chosen"),
    "a response of no width": ({"rejected": "\u200b\ufeff"}, "empty rejected"),
    "a question of fixed spaces": ({"question": "\u00a0\u3000"}, "empty question"),
    "a response of special tokens": ({"chosen": "<s> </s>"}, "empty chosen"),
    "a biased response of special tokens": ({"vision_biased": "</s>"}, "empty vision_biased"),
    "a question of special tokens": ({"question": "<image>"}, "question holds special tokens"),
    "a prompt beyond max_length": ({"question": "what " * 600}, "its prompt alone has"),
    "a cut that is a word": ({"chosen_cut": "False"}, "chosen_cut that is neither true nor"),
    "an id of no width": ({"idx": "\u200b"}, "single spaces"),
    "a response that is a number": ({"language_biased": 5}, "language_biased that is no"),
    "no such image": ({"image": "b.png"}, "its file 'b.png' is not there"),
    "bytes that are text": ({"image": {"bytes": "/etc/hostname"}}, "its bytes are no bytes"),
    "a path that is a number": ({"image": 7}, "its path is no text"),
    "a path with a null": ({"image": "a\0b"}, "is none"),
    "a file that is no image": ({"image": "rows.jsonl"}, "image"),
    "half a character": ({"question": "what \ud800 ?"}, "half a character"),
    "an id of two lines": ({"idx": "2\n2"}, "single spaces"),
}

# Lines of a RUN.yaml -> part of the message
RUN = {"run_folder": "out", "model": "base", "rows": "rows", "reference": "ref", "variant": "A1"}
RUNS = {
    "variant": ("A9", "variant: Unknown variant 'A9'. Did you mean 'A3'"),
    "varaint": ("A1", "Did you mean 'variant'"),
    "rows": (None, "rows is None; write a text"),
    "training": ({"epoch": 1}, "Unknown key of training in run.yaml: 'epoch'. Did you mean"),
    "plugins": (["nowhere"], "The plugin nowhere cannot be imported"),
}

# Text of a label file -> part of the message
LABELS = {
    "id,kind,label,annotator\na,language_biased,good,ann\n": "Unknown label 'good'",
    "id,kind,label,annotator\na,language_biased,biased\n": "has 3 fields, not 4",
    "id,label\na,biased\n": "it must name id, kind, label",
}

# Calls, given a session of an empty workspace
CALLS = {
    "unknown variant": (lambda s: stages.train(s, "A9", 0), "Unknown variant 'A9'"),
    "unknown tuning": (lambda s: s.tune("lorra"), "Did you mean 'lora'"),
    "q as a word": (lambda s: numbers("qs", "0.1,x"), "numbers with commas"),
    "no such checkpoint": (lambda s: stages.evaluate(s, "base", model="/no/such"), "/no/such"),
    "no threads": (lambda s: stages.pretrain(s, 0, 0), "threads is 0"),
    "model of no package": (lambda s: Model(path="os:folder").location, "is not a package"),
    "model of no module": (lambda s: Model(path="nowhere:a").location, "is not installed"),
    "rows before their source": (lambda s: stages.build_rows(s), "00_icon_world"),
    "training before rows": (lambda s: stages.train(s, "A1", 0), "01_build_biased_data"),
    "labels before rows": (lambda s: stages.annotate(s), "01_build_biased_data"),
    "tables before results": (lambda s: stages.all_results(s), "06_evaluate.ipynb first"),
}

# A file of each kind that readers get, what it becomes -> part of the message. The benchmarks' own:
# tests/benchmarks/test_formats.py.
FOREIGN = {
    "HTML": (b"<!DOCTYPE html><title>403</title>", "it is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    "UTF-16": ("id,a\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
    "latin-1": ("Größe: é".encode("latin-1"), "UTF-8|Parquet magic bytes|it is none of"),
    "gzip": (b"\x1f\x8b\x08", "gzip; unpack it"),
    "zip": (b"PK\3\4", "zip archive; unpack it"),
}  # fmt: skip
READERS = {
    "a.parquet": lambda path: sources.survey(path.parent),
    "a.jsonl": lambda path: sources.survey(path.parent),
    "ann.csv": read_labels,
    "mine.yaml": lambda path: load_profile(str(path)),
    "run.yaml": lambda path: load_run(path),
    "export.json": read_export,
    "manifest.json": lambda path: manifests.require(path.parent),
    "records/000001.parquet": lambda path: read_records(path.parents[1]),
    "picture.png": lambda path: Request("1", "What?", path).open(),
    "mmhal/judge_prompt.txt": lambda path: judges.make(JUDGE, path.parents[1], None),
}
JUDGE = Evaluation(judge="openai", judge_model="m")

table: list[tuple[str, str]] = []


def check(kind, message, part):
    """A message is one sentence with this part; note it in the table."""
    assert part in message
    assert "\n" not in message and message.endswith((".", "?", ")")) and len(message) < 600
    assert not any(word in message for word in ("Traceback", "pydantic", "<class"))
    table.append((kind, message))


def refused(kind, act, part):
    with pytest.raises(NapoError) as error:
        act()
    check(kind, str(error.value), part)


def tree(root):
    return {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


@pytest.fixture(scope="module", autouse=True)
def print_the_table():
    yield
    for number, (kind, message) in enumerate(table, 1):
        print(f"| {number} | {json.dumps(kind[:100])[1:-1]} | {message} |")


@pytest.fixture
def session(tmp_path):
    return open_session("smoke", str(tmp_path))


@pytest.mark.parametrize("text", PROFILES, ids=lambda text: text[:60])
def test_a_bad_profile_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    refused(f"profile `{text}`", lambda: load_profile(str(path)), PROFILES[text])


def test_a_world_that_names_no_function_is_refused_when_a_session_opens(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "extends: smoke\nname: bad\nworld: {make_rows: 'napo.icon_world.rows:make_row'}"
    )
    message = "world.make_rows names 'napo.icon_world.rows:make_row', which cannot be used"
    refused("world", lambda: open_session(str(path), str(tmp_path / "work")), message)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("book", "name", "value"), PARAMETERS)
def test_a_bad_parameter_of_a_notebook_is_refused(book, name, value):
    cells = nbformat.read(ROOT / "notebooks" / f"{book}.ipynb", as_version=4).cells
    declared = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    injected, namespace = f"# Parameters\n{name} = {value!r}\n", {}
    exec(compile(declared, book, "exec"), namespace)
    exec(injected, namespace)
    kinds, cells = namespace["__annotations__"], [declared, injected]
    act, part = lambda: check_parameters(namespace, kinds, cells), PARAMETERS[book, name, value]
    refused(f"{book} `-p {name} {value}`", act, part)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: repr(command)[:60])
def test_a_bad_command_line_is_refused(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    arguments = list(command)
    for option, value in (("--workspace", str(tmp_path)), ("--profile", "smoke")):
        arguments += [] if option in arguments else [option, value]
    before = tree(tmp_path)
    assert main(arguments) == 1
    first, message = capsys.readouterr().err.strip().split(" ", 1)
    assert first == "napo:"
    check(f"napo {' '.join(command)}", message, COMMANDS[command])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ROWS)
def test_a_bad_row_stops_the_stage_or_is_skipped(tmp_path, kind):
    change, part = ROWS[kind]
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (8, 8)).save(source / "a.png")
    rows = [ROW, {**ROW, "idx": "2", **change}]
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    session = open_session("smoke", str(tmp_path / "work"))
    for bad_rows in ("stop", "skip"):
        settings = {"source": str(source), "count": 0, "bad_rows": bad_rows}
        data = session.profile.data.model_copy(update=settings)
        profile = session.profile.model_copy(update={"data": data})
        other = type(session)(profile, Workspace(tmp_path / bad_rows, "smoke"))
        if bad_rows == "stop":
            refused(f"row with {kind}", lambda other=other: stages.build_rows(other), part)
        else:
            assert load_rows(stages.build_rows(other))["id"] == ["1"]


@pytest.mark.parametrize("key", RUNS)
def test_a_bad_run_file_stops_before_anything_is_made(tmp_path, capsys, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    value, part = RUNS[key]
    (tmp_path / "run.yaml").write_text(json.dumps({**RUN, key: value}))
    assert training.main(["run.yaml"]) == 1
    message = capsys.readouterr().err.strip()
    check(f"RUN.yaml `{key}: {value}`", message, part)
    assert message.startswith("napo: ") and "run.yaml" in message
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.kind("raw tracebacks from damaged inputs")
@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_something_else_is_a_sentence(tmp_path, name, kind, result):
    content, part = FOREIGN[kind]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(NapoError, match=part) as error:
        READERS[name](path)
    result(error.value)
    check(f"{name} that is {kind}", str(error.value), "")
    assert path.name in str(error.value) or name == "picture.png"  # which names its request


@pytest.mark.kind("raw tracebacks from damaged inputs")
@pytest.mark.parametrize("name", ["a.jsonl", "ann.csv", "mine.yaml"])
def test_a_mark_of_utf_8_is_left_out(tmp_path, name):
    texts = {
        "a.jsonl": json.dumps(ROW),
        "ann.csv": "id,kind,label,annotator\n1,language_biased,biased,ann\n",
        "mine.yaml": "extends: smoke\nname: mine\n",
    }
    (tmp_path / name).write_text(texts[name], encoding="utf-8-sig")
    assert READERS[name](tmp_path / name) is not None


@pytest.mark.parametrize("text", LABELS)
def test_a_bad_label_file_is_refused(tmp_path, text):
    path = tmp_path / "ann.csv"
    path.write_text(text)
    refused(f"labels `{text.splitlines()[-1]}`", lambda: read_labels(path), LABELS[text])


@pytest.mark.parametrize("kind", CALLS)
def test_a_bad_call_stops_before_anything_is_written(session, tmp_path, kind):
    act, part = CALLS[kind]
    before = tree(tmp_path)
    refused(kind, lambda: act(session), part)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--coers", "2"], 1, "unrecognized arguments: --coers"),  # Snakemake's answer
        (["--cores", "0"], 2, "greater than or equal to 1"),
        (["--tune", "lorra"], 1, "Did you mean 'lora'"),
    ],
)
def test_a_real_process_prints_one_sentence(tmp_path, arguments, code, part):
    call = [sys.executable, "-m", "napo", "reproduce", "--profile", "smoke", *arguments]
    done = subprocess.run(
        [*call, "--workspace", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert done.stderr.startswith("napo: ") and part in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data" / "smoke" / "source").exists()

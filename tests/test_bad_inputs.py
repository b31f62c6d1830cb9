"""Bad inputs, each with the sentence it gets: it names the thing and the remedy, and nothing else
happens. `pytest tests/test_bad_inputs.py -s -k table` prints the table."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from napo import stages
from napo.commands.cli import main
from napo.config.profile import Model, World, load_profile
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.noise.labels import read_labels
from napo.stages.session import check_parameters, numbers, open_session
from napo.training import __main__ as run
from napo.workspace.folders import Workspace

ROOT = Path(__file__).parent.parent
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A profile's text -> what the sentence has to hold.
PROFILES = {
    "trainng: {}": "Did you mean 'training'",
    "training: {learning_rat: 1}": "Did you mean 'learning_rate'",
    "training: {decoding: {beams: 2}}": "Unknown key",
    "masks: {decoding: {num_beam: 2}}": "Did you mean 'num_beams'",
    "sources: [{name: a, to: b, fils: c}]": "Did you mean 'files'",
    "training: {beta: 0}": "greater than 0",
    "training: {beta: -0.1}": "greater than 0",
    "training: {beta: .inf}": "finite",
    "training: {beta: .nan}": "finite",
    "training: {beta: high}": "valid number",
    "training: {learning_rate: 5e}": "valid number",
    "training: {epochs: 1.5}": "valid integer",
    "training: {epochs: 0}": "greater than 0",
    "training: {epochs: yes}": "training.epochs is True; write a number",
    "training: {beta: true}": "training.beta is True; write a number",
    "training: {weight_decay: off}": "training.weight_decay is False; write a number",
    "data: {seed: no}": "data.seed is False; write a number",
    "evaluation: {sizes: {vlind: yes}}": "evaluation.sizes is {'vlind': True}; write a number",
    "training: {batch_size: 32, micro_batch_size: 5}": "not a multiple of micro_batch_size 5",
    "training: {warmup_ratio: 1}": "less than 1",
    "training: {weight_decay: -1}": "greater than or equal to 0",
    "training: {tune: lorra}": "'full', 'lora' or 'qlora'",
    "training: {schedule: linar}": "'cosine', 'linear' or 'constant'",
    "training: {q_rule: mine}": "'paper' or 'released'",
    "training: {bf16: maybe}": "valid boolean",
    "training: {lora_targets: 'q_proj,,v_proj'}": "names of layers with commas",
    "training: {lora_dropout: 1}": "less than 1",
    "training: {logits_mb: 0}": "greater than 0",
    "training: 3": "section of keys and values",
    "model: {dtype: float64}": "'float32', 'bfloat16' or 'float16'",
    "model: {attention: flash}": "'sdpa', 'eager' or 'flex_attention'",
    "model: {path: 7}": "put it in quotes",
    "model: {image_mode: stretch}": "'crop' or 'pad'",
    "masks: {image: blank}": "'mask_token'",
    "masks: {text: blank}": "'mask_token' or 'drop'",
    "masks: {engine: sglang}": "'transformers' or 'vllm'",
    "masks: {batch_size: 0}": "greater than 0",
    "masks: {decoding: {min_new_tokens: 9, max_new_tokens: 8}}": "is above max_new_tokens 8",
    "masks: {decoding: {temperature: -1}}": "greater than or equal to 0",
    "masks: {decoding: {temperature: 1e-40}}": "give 0, which is greedy, or 0.01 and more",
    "masks: {decoding: {temperature: 1.0e+9}}": "less than or equal to 100",
    "masks: {decoding: {top_p: 1.2}}": "less than or equal to 1",
    "masks: {decoding: {top_p: 1.0e-300}}": "greater than or equal to 0.000001",
    "masks: {decoding: {num_beams: two}}": "valid integer",
    "data: {count: -1}": "greater than or equal to 0",
    "data: {p_typical: 2}": "less than or equal to 1",
    "data: {bad_rows: ignore}": "'stop' or 'skip'",
    "data: {shard_rows: 0}": "greater than 0",
    "data: [a, b]": "section of keys and values",
    "annotation: {samples: 0}": "greater than 0",
    "annotation: {annotator: yes}": "put it in quotes",
    "evaluation: {benchmarks: [vlnd]}": "Did you mean 'vlind'",
    "evaluation: {benchmarks: []}": "at least one benchmark",
    "evaluation: {benchmarks: [amber, amber]}": "each once",
    "evaluation: {sizes: {vlnd: 3}}": "Did you mean 'vlind'",
    "evaluation: {sizes: {vlind: 0}}": "at least one instance",
    "evaluation: {judge: gpt4}": "'rule' or 'openai'",
    "evaluation: {judge: openai}": "name the judge",
    "evaluation: {extractor: nltk}": "'vocabulary', 'wordnet' or 'llm'",
    "evaluation: {split: train}": "'test' or 'validation'",
    "evaluation: {vote_threshold: 0}": "greater than 0",
    "launch: {processes: -1}": "greater than or equal to 0",
    "launch: {strategy: zero1}": "'ddp', 'zero2', 'zero3' or 'fsdp2'",
    "sources: [{to: b}]": "sources.0.name is missing",
    "sources: [{name: a, to: ../b}]": "inside the workspace",
    "sources: [{name: a, to: /etc}]": "inside the workspace",
    "sources: [{name: a, to: b, kind: file}]": "'model' or 'dataset'",
    "seeds: '0,0'": "names a seed twice",
    "seeds: '0,x'": "whole numbers with commas",
    "seeds: '-1'": "0 or larger",
    "seeds: []": "valid string",
    "threads: 0": "greater than 0",
    "threads: on": "threads is True; write a number",
    "threads: 99999999999": "less than or equal to 1024",
    f"threads: {'9' * 5000}": "line 1: '9999999999999999999999999999999999999999 ...' is no whole",
    f"threads: 0x{'f' * 5000}": "is no whole number below 2^63",
    "scale: huge": "'tiny' or 'paper'",
    "paper_model: 70B": "'7B' or '13B'",
    "data: {seed: -1}": "greater than or equal to 0",
    "annotation: {seed: 4294967296}": "less than 4294967296",
    "evaluation: {seed: -1}": "greater than or equal to 0",
    "model: {path: ':folder'}": "package:folder",
    "model: {path: /tmp/x, revision: abc}": "set model.revision to ''",
    "model: {path: 'napo.icon_world:checkpoint', revision: abc}": "is no id on the hub",
    "model: {path: ./mine, revision: abc}": "is no id on the hub",
    "name: ../tiny": "pattern",
    "name: a b": "pattern",
    "name: paper": "the folder paper holds the published numbers; choose another name",
    "name: Downloads": "choose another name",
    f"name: {'n' * 300}": "at most 100 characters",
    f"title: [{'t' * 3000}]": "valid string",
    "variants: [dpo, dpo]": "is there twice",
    "variants: [dpo, A9]": "Unknown variant 'A9'. Did you mean 'A3'?",
    "baselines: [rpo]": "Unknown variant 'rpo'. Did you mean 'ropo'?",
    "variants: dpo": "valid tuple",
    "variants: ['../dpo']": "pattern",
    "world: {make_rows: nowhere}": "package.module:function",
    "world: {make_rows: 'os.system(1):x'}": "package.module:function",
    "world: {make_rows: 'napo.nowhere:f'}": "world.make_rows names 'napo.nowhere:f', which is no",
    "world: {make_rows: 'nowhere.at.all:f'}": "is no function that is there",
    "world: {make_rows: 'napo.icon_world.rows:make_row'}": "is no function that is there",
    "world: {label_by_truth: 'napo.config.profile:PROFILES'}": "is no function that is there",
    "extends: tinny": "Did you mean 'tiny'",
    "extends: bad.yaml": "extends itself",
    "seeds: '0'\nseeds: '1'": "the key 'seeds' is there twice",
    "training: {beta: 1, beta: 2}": "the key 'beta' is there twice",
    "a: [": "line 1",
    "- 1\n- 2": "keys and values",
    "just text": "keys and values",
    "!!python/object/apply:os.system ['true']": "line 1",
    "a: &a [*a]": "line 1: found unconstructable recursive node",
    "model: {architecture: &a {b: *a}}": "line 1: found unconstructable recursive node",
    "1: 2": "a key is no word",
    "? !!str [a]\n: 2": "a key is no word",
    "title: !!float foo": "line 1: 'foo' is no number",
    "title: !!int foo": "line 1: 'foo' is no whole number",
    "title: !!int ''": "line 1: '' is no whole number",
    "title: !!bool foo": "line 1: 'foo' is neither true nor false",
    "title: !!timestamp foo": "line 1: '!!timestamp' is read nowhere here",
    "title: !!set {a, b}": "line 1: '!!set' is read nowhere here",
    "title: !!binary aGk=": "line 1: '!!binary' is read nowhere here",
    "training: !!map foo": "line 1",
    f"threads: 1{':00' * 400}.0": "is no number",
    "\ufeffseeds: '0,0'": "names a seed twice",
}

# What is asked of the real notebooks: (notebook, parameter, value) -> what the sentence holds.
PARAMETERS = [
    *((book.stem, "proflie", "tiny", "Did you mean 'profile'") for book in BOOKS),
    *((book.stem, "workspace", ["w"], "give a text") for book in BOOKS),
    ("00_icon_world", "pretrain", "perhaps", "give True or False"),
    ("00_icon_world", "seed", "one", "give a whole number"),
    ("00_icon_world", "threads", 1.5, "give a whole number"),
    ("02_annotate_noise", "interactiv", True, "Did you mean 'interactive'"),
    ("02_annotate_noise", "interactive", "maybe", "give True or False"),
    ("05_train", "varient", "A1", "Did you mean 'variant'"),
    ("05_train", "seeds", None, "give a text"),
    ("06_evaluate", "dryrun", True, "Did you mean 'dry_run'"),
    ("06_evaluate", "dry_run", "2", "give True or False"),
    ("07_results", "seed", "0", "Did you mean 'seeds'"),
]


def place(root):
    return ["--profile", "smoke", "--workspace", str(root)]


# A command line -> what its sentence holds.
COMMANDS = {
    "reproduce, unknown profile": (["reproduce", "--profile", "tinny"], "Did you mean 'tiny'"),
    "reproduce, no such file": (["reproduce", "--profile", "x/y.yaml"], "is no file"),
    "reproduce, a file as workspace": (["reproduce", "--workspace", __file__], "folder"),
    "reproduce, a name too long": (["reproduce", "--profile", "x" * 5000], "Unknown profile 'xxx"),
    "reproduce, a path too long": (["reproduce", "--profile", f"{'x' * 5000}.yaml"], "is no file"),
    "reproduce, a null in a path": (["reproduce", "--profile", "x\0.yaml"], "is no file"),
    "reproduce, half a character": (["reproduce", "--profile", "\ud800.yaml"], "is no file"),
    "reproduce, a line's end": (["reproduce", "--profile", "x\ny.yaml"], "is no file"),
    "reproduce, a letter as seed": (["reproduce", "--seeds", "x"], "seeds is 'x'"),
    "reproduce, unknown tuning": (["reproduce", "--tune", "lorra"], "Did you mean 'lora'"),
    "check, unknown profile": (["check", "--profile", "llava-1.5-7c"], "llava-1.5-7b"),
    "fetch, unknown profile": (["fetch", "--profile", "llava-1.5-7c"], "llava-1.5-7b"),
    "verify, nothing there": (["verify", "--profile", "smoke"], "run make reproduce first"),
    "figures, unknown": (["figures", "fig5"], "Did you mean 'fig4'"),
    "figures, no margins": (["figures", "fig4"], "fig4.csv is missing"),
    "figures, no such place": (["figures", "fig3", "--workspace", "/proc/none"], "/proc/none"),
    "label studio, no rows": (["label-studio", "export", "s.json"], "01_build_biased_data"),
}

# A row of a data set -> what the sentence holds.
GOOD = {"idx": "1", "question": "What?", "chosen": "A cat.", "rejected": "A dog."}
ROWS = {
    "no question": ({"question": None}, "question"),
    "an empty chosen": ({"chosen": " "}, "chosen"),
    "an empty rejected": ({"rejected": ""}, "rejected"),
    "no image": ({"image": None}, "image"),
    "bytes that are no image": ({"image": {"bytes": b"no", "path": None}}, "image"),
    "an id of two lines": ({"idx": "2\n2"}, "single spaces"),
    "an id with a space at its end": ({"idx": "2 "}, "single spaces"),
}
JSON_ROWS = {
    "bytes that are text": ({"image": {"bytes": "/etc/hostname"}}, "its bytes are no bytes"),
    "an image that is a number": ({"image": 7}, "its path is no text"),
    "a path with a null": ({"image": "a\0b"}, "is none"),
    "a path too long": ({"image": "p" * 5000}, "is none"),
    "half a character": ({"question": "what \ud800 ?"}, "half a character"),
    "half a character in an id": ({"idx": "2\udc00"}, "half a character"),
    "half a character elsewhere": ({"origin_split": "\ud800"}, "half a character"),
    "a given response that is a number": ({"language_biased": 5}, "language_biased that is no"),
}

# A RUN.yaml's change -> what the sentence holds.
RUNS = {
    "variant: A9": "Did you mean 'A3'",
    "variant: [A1]": "valid string",
    "training: {epoch: 1}": "Did you mean 'epochs'",
    "training: {beta: -1}": "greater than 0",
    "training:": "section of keys and values",
    "seed: abc": "valid integer",
    "seed: -1": "greater than or equal to 0",
    "dtype: float64": "'float32', 'bfloat16' or 'float16'",
    "image_mode: stretch": "'crop' or 'pad'",
    "data_workers: two": "valid integer",
    "run_folder: 7": "put it in quotes",
    "rows: null": "valid string",
    "model: m": "the key 'model' is there twice",
    "varaint: A1": "Did you mean 'variant'",
}
RUN = "run_folder: out\nmodel: base\nrows: rows\nreference: reference\nvariant: A1\n"

LABELS = {
    "id,kind,label,annotator\na,language_biased,good,ann\n": "Unknown label 'good'",
    "id,kind,label,annotator\na,visual,biased,ann\n": "Unknown kind 'visual'",
    "id,kind,label,annotator\n,language_biased,biased,ann\n": "the id is empty",
    "id,kind,label,annotator\na,language_biased,biased\n": "has 3 fields, not 4",
    "id,label\na,biased\n": "it must name id, kind, label",
}

VALUES = {
    "a variant": (lambda s: stages.train(s, "A9", 0), "Unknown variant 'A9'"),
    "seeds": (lambda s: s.seeds("0;1"), "whole numbers with commas"),
    "tune": (lambda s: s.tune("lorra"), "Did you mean 'lora'"),
    "q as a word": (lambda s: numbers("qs", "0.1,x"), "numbers with commas"),
    "seeds too large": (lambda s: s.seeds("4294967296"), "below 2^32"),
    "tables before results": (lambda s: stages.all_results(s), "06_evaluate.ipynb first"),
    "a checkpoint": (lambda s: stages.evaluate(s, "base", model="/no/such"), "/no/such"),
    "threads of pretraining": (lambda s: stages.pretrain(s, 0, 0), "threads is 0"),
    "seeds of thousands of digits": (lambda s: s.seeds("9" * 5000), "whole numbers with commas"),
    "seeds of thousands of seeds": (lambda s: s.seeds("1," * 5000), "whole numbers with commas"),
    "a model of no package": (lambda s: Model(path="os:folder").location, "which is no package"),
    "a model of no module": (lambda s: Model(path="nowhere:a").location, "which is not installed"),
    "a revision of a folder": (lambda s: Model(path="/tmp/x", revision="a"), "no id on the hub"),
    "a world that is no function": (
        lambda s: World(label_by_truth="napo.config.profile:PROFILES").function("label_by_truth"),
        "which is not a function; write it",
    ),
    "rows before they are made": (lambda s: stages.build_rows(s), "00_icon_world"),
    "training before rows": (lambda s: stages.train(s, "A1", 0), "01_build_biased_data"),
    "labels before rows": (lambda s: stages.annotate(s), "01_build_biased_data"),
}

table: list[tuple[str, str]] = []


def told(what, act, capsys=None):
    """The sentence that a bad input gets, which is checked to be one and kept for the table."""
    with pytest.raises(NapoError) as caught:
        act()
    said = str(caught.value)
    assert "\n" not in said and said.endswith((".", "?", ")")) and "Traceback" not in said, said
    assert "pydantic" not in said and "<class" not in said and len(said) < 600, said
    table.append((what, said))
    return said


def tree(root):
    return {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


@pytest.fixture
def session(tmp_path):
    return open_session("smoke", str(tmp_path))


@pytest.mark.parametrize("text", PROFILES, ids=lambda text: text[:60])
def test_a_bad_profile(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    if "bad.yaml" in text:
        path.write_text(f"extends: {path}")
    said = told(f"profile `{text}`", lambda: load_profile(str(path)))
    assert PROFILES[text] in said


def test_a_profile_that_is_no_text(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in told("profile, bytes", lambda: load_profile(str(tmp_path / "bad.yaml")))
    (tmp_path / "folder.yaml").mkdir()
    assert "is no file" in told("a folder", lambda: load_profile(str(tmp_path / "folder.yaml")))


@pytest.mark.parametrize(("book", "name", "value", "part"), PARAMETERS)
def test_a_bad_parameter_of_a_notebook(book, name, value, part):
    cells = nbformat.read(ROOT / "notebooks" / f"{book}.ipynb", as_version=4).cells
    declared = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    namespace = {}
    exec(compile(declared, book, "exec"), namespace)
    given = f"# Parameters\n{name} = {value!r}\n"
    exec(given, namespace)
    kinds = namespace["__annotations__"]
    said = told(
        f"{book} `-p {name} {value}`", lambda: check_parameters(namespace, kinds, [declared, given])
    )
    assert part in said


@pytest.mark.parametrize("what", COMMANDS)
def test_a_bad_command_line(tmp_path, capsys, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    arguments, part = COMMANDS[what]
    if "--workspace" not in arguments:
        arguments = [*arguments, "--workspace", str(tmp_path)]
    if "--profile" not in arguments:
        arguments = [*arguments, "--profile", "smoke"]
    before = tree(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("napo: ") and part in said and "\n" not in said
    table.append((f"command: {what}", said))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("what", ROWS)
def test_a_bad_row(tmp_path, what):
    change, part = ROWS[what]
    image = {"bytes": picture(), "path": None}
    rows = [{**GOOD, "image": image}, {**GOOD, "idx": "2", "image": image, **change}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")

    made = open_session("smoke", str(tmp_path / "work"))
    data = made.profile.data.model_copy(update={"source": str(tmp_path), "count": 0})
    asked = type(made)(made.profile.model_copy(update={"data": data}), made.workspace)
    said = told(f"row with {what}", lambda: stages.build_rows(asked))
    assert part in said and "2" in said


@pytest.mark.parametrize("what", JSON_ROWS)
def test_a_bad_row_of_json_stops_the_stage_or_is_skipped(tmp_path, what):
    change, part = JSON_ROWS[what]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture())
    biased = {"language_biased": "A dog.", "vision_biased": "A bird."}  # no model is needed
    rows = [{**GOOD, **biased, "image": "a.png"}, {**GOOD, **biased, "image": "a.png", "idx": "2"}]
    rows[1] |= change
    (tmp_path / "in" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = open_session("smoke", str(tmp_path / "work"))
    for bad_rows in ("stop", "skip"):
        changed = {"source": str(tmp_path / "in"), "count": 0, "bad_rows": bad_rows}
        data = made.profile.data.model_copy(update=changed)
        place = Workspace(tmp_path / bad_rows, "smoke")
        asked = type(made)(made.profile.model_copy(update={"data": data}), place)
        if bad_rows == "stop":
            assert part in told(
                f"JSON row with {what}", lambda asked=asked: stages.build_rows(asked)
            )
        else:
            assert load_rows(stages.build_rows(asked))["id"] == ["1"]


@pytest.mark.parametrize("text", RUNS)
def test_a_bad_run_file_stops_before_anything_is_made(tmp_path, capsys, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    key = text.split(":")[0]
    kept = [] if key == "model" else [f"{key}:"]
    lines = [line for line in RUN.splitlines() if not line.startswith(tuple(kept or ["-"]))]
    (tmp_path / "run.yaml").write_text("\n".join([*lines, text]))
    assert run.main(["run.yaml"]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("napo: ") and "run.yaml" in said and RUNS[text] in said
    assert "\n" not in said
    table.append((f"RUN.yaml `{text}`", said))
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def picture():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("text", LABELS)
def test_bad_labels(tmp_path, text):
    path = tmp_path / "ann.csv"
    path.write_text(text)
    said = told(f"labels `{text.splitlines()[-1]}`", lambda: read_labels(path))
    assert LABELS[text] in said and "ann.csv" in said


@pytest.mark.parametrize("what", VALUES)
def test_a_bad_value_stops_before_anything_is_written(session, tmp_path, what):
    act, part = VALUES[what]
    before = tree(tmp_path)
    assert part in told(what, lambda: act(session))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--coers", "2"], 1, "unrecognized arguments: --coers"),  # Snakemake's answer
        (["--cores", "0"], 2, "greater than or equal to 1"),
        (["--tune", "lorra"], 1, "Did you mean 'lora'"),
    ],
)
def test_a_real_process_says_one_sentence(tmp_path, arguments, code, part):
    call = [sys.executable, "-m", "napo", "reproduce", "--profile", "smoke", *arguments]
    done = subprocess.run(
        [*call, "--workspace", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert done.stderr.startswith("napo: ") and part in done.stderr
    assert done.stderr.count("\n") == 1
    table.append((" ".join(arguments), done.stderr.strip()))
    assert not (tmp_path / "data" / "smoke" / "source").exists()


def test_the_table_has_at_least_eighty_bad_inputs(capsys):
    """Last: it counts what the tests above have shown, when they ran in this process."""
    groups = (PROFILES, PARAMETERS, COMMANDS, ROWS, JSON_ROWS, RUNS, LABELS, VALUES)
    inputs = sum(map(len, groups))
    assert inputs >= 80
    with capsys.disabled():
        for number, (what, said) in enumerate(table, 1):
            what = what if len(what) <= 100 else f"{what[:100]} ..."
            print(f"| {number} | {json.dumps(what)[1:-1]} | {said} |")

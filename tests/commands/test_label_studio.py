"""To Label Studio and back."""

import base64
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from napo import lab, stages
from napo.commands.label_studio import export_samples, import_labels
from napo.config.variants import BIASED
from napo.errors import NapoError


@pytest.fixture
def tasks(unlabelled, tmp_path):
    path = tmp_path / "samples.json"
    assert export_samples(unlabelled, path) == 60
    return json.loads(path.read_text())


def annotation(value="biased", by="ann@lab.example", note="", skipped=False):
    """As Label Studio 1.23.2 exports it: a number in JSON, an account with email in a snapshot."""
    account = {"id": 3, "email": by} if isinstance(by, str) else by
    tags = {"label": {"choices": [value]}} | ({"note": {"text": note.split("|")}} if note else {})
    result = [{"from_name": name, "to_name": "response", "value": tags[name]} for name in tags]
    return {"completed_by": account, "was_cancelled": skipped, "result": [] if skipped else result}


def labelled(tasks, *annotations):
    """An export of the first tasks, each with its annotations."""
    pairs = zip(tasks, annotations, strict=False)
    return [{**task, "id": 1, "annotations": annotations} for task, annotations in pairs]


@pytest.fixture
def load(unlabelled, tmp_path):
    """Imports a JSON export; returns all stored labels as (label, annotator, note)."""

    def load_(content, **options):
        path = tmp_path / "export.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        import_labels(unlabelled, path, **options)
        frame = stages.everyones_labels(unlabelled)
        return frame[["label", "annotator", "note"]].to_numpy().tolist()

    return load_


def test_a_task_holds_what_the_annotator_shows(unlabelled, tasks):
    rows, samples = stages.samples(unlabelled)
    row, data = next(row for row in rows if row["id"] == samples[0]), tasks[0]["data"]
    items = [(task["data"]["id"], task["data"]["kind"]) for task in tasks]
    assert items == [(id, kind) for id in samples for kind in BIASED]
    texts = [data[name] for name in ("question", "chosen", "response")]
    assert texts == [row["question"], row["chosen"], row[BIASED[0]]]
    head, content = data["image"].split(",")
    assert head == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert picture.tobytes() == row["image"].convert("RGB").tobytes()


def test_the_config_shows_the_data_as_text_and_requires_a_label(tasks, tmp_path):
    tree = ElementTree.parse(tmp_path / "samples.xml")
    shown = {part.get("value")[1:] for part in tree.iter() if (part.get("value") or "")[:1] == "$"}
    assert shown == {"chosen", "image", "question", "response"} and shown <= set(tasks[0]["data"])
    assert not list(tree.iter("HyperText"))  # the only tag that would show markup
    assert {part.get("valueType") for part in tree.iter("Text")} == {"text"}
    choices = {part.get("value"): part.get("hotkey") for part in tree.iter("Choice")}
    assert choices == {"biased": "1", "unbiased": "2", "unsure": "3"}
    assert tree.find("Choices").get("required") == "true"


def test_labels_go_to_a_file_of_each_email(tasks, load):
    export = labelled(
        tasks,
        [annotation(note="two\nlines |  and\0 more"), annotation("unsure", "ben@lab.example")],
        [annotation(skipped=True)],
        [annotation("unbiased")],
        [],
    )
    assert load(export) == [
        ["biased", "ann@lab.example", "two lines and more"],
        ["unbiased", "ann@lab.example", ""],
        ["unsure", "ben@lab.example", ""],
    ]
    assert load(export) == load(export)


def test_a_number_needs_a_name(tasks, load):
    export = labelled(tasks, [annotation(by=7)])
    with pytest.raises(NapoError, match="holds labels of 7; give one person's name"):
        load(export)
    assert load(export, annotator="ann") == [["biased", "ann", ""]]


def test_other_labels_or_notes_change_only_with_replace(unlabelled, tasks, load):
    tool = lab.label(unlabelled, "ann@lab.example")
    tool.note.value = "mine"
    tool.label("biased")
    for other in (annotation("unsure", note="mine"), annotation(note="another")):
        with pytest.raises(NapoError, match="would change 1 labels or notes"):
            load(labelled(tasks, [other]))
    assert load(labelled(tasks, [annotation("unsure")]), replace=True) == [
        ["unsure", "ann@lab.example", ""]
    ]


BAD = {
    "no JSON": ("{", {}, "is damaged .it is cut short.; export the project as JSON"),
    "no list of tasks": ('{"a": 1}', {}, "it should be a valid list.; export the project"),
    "numbers": ("[1]", {}, "entry 1 is 1; it should be"),
    "JSON-MIN": ([{"id": 1, "label": "biased", "annotator": 1}], {}, "not as JSON-MIN"),
    "no labels": ([], {}, "holds no labels"),
    "unknown label": ([annotation("biassed")], {}, "task 1: .*Did you mean .biased"),
    "two labels": ([annotation(), annotation("unsure")], {}, "task 1 has a second label of ann@"),
    "two people, one name": ([annotation(), annotation(by=7)], {"annotator": "ann"}, "labels of 7"),
    "reserved name": ([annotation()], {"annotator": "oracle"}, "give one person's name"),
    "name that leaves the folder": ([annotation(by="../a@b")], {}, "give a name of letters"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_export_is_one_sentence_and_changes_nothing(unlabelled, tasks, load, case):
    content, options, sentence = BAD[case]
    export = content if "result" not in str(content) else labelled(tasks, content)
    with pytest.raises(NapoError, match=sentence):
        load(export, **options)
    assert not list(unlabelled.workspace.annotations.glob("*.csv"))


@pytest.mark.parametrize(
    ("name", "sentence"), [("data_set", "is no sample"), ("id", "is no sample"), ("kind", "kind")]
)
def test_a_task_of_another_data_set_is_refused(tasks, load, name, sentence):
    tasks[0]["data"][name] = "another"
    with pytest.raises(NapoError, match=f"task 1.*{sentence}"):
        load(labelled(tasks, [annotation()]))


@pytest.mark.parametrize(
    ("work", "name", "sentence"),
    [
        (import_labels, "none.json", "is missing; export the project"),
        (export_samples, "", "cannot be written: a folder is where the file belongs"),
        (export_samples, "s.xml", "name a .json file"),
    ],
)
def test_a_path_that_does_not_fit_is_one_sentence(unlabelled, tmp_path, work, name, sentence):
    with pytest.raises(NapoError, match=sentence):
        work(unlabelled, tmp_path / name)

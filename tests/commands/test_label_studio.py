"""To Label Studio and back."""

import base64
import io
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hostile import HOSTILE
from PIL import Image

from napo import lab, stages
from napo.commands import label_studio
from napo.errors import NapoError
from napo.noise.agreement import people
from napo.stages.session import open_session


@pytest.fixture
def unlabelled(unlabelled):
    return unlabelled


def labelled(unlabelled, name, values, note=""):
    tool = lab.label(unlabelled, name)
    for at, value in enumerate(values):
        tool.show(at)
        tool.note.value = note
        tool.label(value)


def annotated(id, value, who=7, when="2026-01-01T00:00:00Z", kind="language_biased", **more):
    """A task as Label Studio exports it, with one annotation."""
    result = [
        {"id": "x", "from_name": "label", "to_name": "response", "type": "choices",
         "origin": "manual", "value": {"choices": [value]}},
        {"id": "y", "from_name": "note", "to_name": "response", "type": "textarea",
         "origin": "manual", "value": {"text": ["grey,", "I think"]}},
    ]  # fmt: skip
    annotation = {
        "id": 1, "completed_by": who, "result": result, "was_cancelled": False,
        "ground_truth": False, "created_at": when, "updated_at": when, "lead_time": 4.2,
    }  # fmt: skip
    return {"id": 3, "data": {"id": id, "kind": kind}, "annotations": [{**annotation, **more}]}


def write(path, tasks):
    path.write_text(json.dumps(tasks))
    return path


def test_what_is_exported_comes_back_as_the_same_labels(unlabelled, tmp_path):
    labelled(
        unlabelled, "ann@lab.example", ("biased", "unbiased", "unsure"), note='say "no", or 2 < 3'
    )
    labelled(unlabelled, "ben@lab.example", ("unbiased", "unbiased"))
    before = stages.everyones_labels(unlabelled)
    path = tmp_path / "samples.json"
    assert label_studio.export(unlabelled, path) == (60, [])
    for csv in unlabelled.workspace.annotations.glob("*.csv"):
        csv.unlink()
    label_studio.import_(unlabelled, path)
    after = stages.everyones_labels(unlabelled)
    assert after.to_dict("records") == before.to_dict("records")


def test_a_task_holds_what_the_annotator_shows(unlabelled, tmp_path):
    label_studio.export(unlabelled, tmp_path / "samples.json")
    tasks = json.loads((tmp_path / "samples.json").read_text())
    tool = lab.label(unlabelled, "ann")
    assert [(task["data"]["id"], task["data"]["kind"]) for task in tasks] == tool.items
    row = tool._rows[tool.items[0][0]]
    data = tasks[0]["data"]
    for name, column in (("question", "question"), ("chosen", "chosen")):
        assert data[name] == row[column]
    assert data["response"] == row["language_biased"]
    head, content = data["image"].split(",")
    assert head == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert picture.tobytes() == row["image"].convert("RGB").tobytes()


def test_photographs_of_all_tasks_stay_under_what_one_import_may_hold(unlabelled):
    noise_of = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    row = {"id": "a", "image": Image.fromarray(noise_of), "question": "?", "chosen": "c"}
    both = {**row, "language_biased": "l", "vision_biased": "v"}
    none = people(stages.everyones_labels(unlabelled))
    uri = label_studio.tasks([both], ["a"], none)[0]["data"]["image"]
    assert uri.startswith("data:image/jpeg;base64,") and len(uri) * 200 < 250 * 2**20
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (1024, 683)
    assert both["image"].size == (3000, 2000)  # the row keeps its own


def test_the_interface_names_what_the_tasks_hold_and_what_import_reads(unlabelled, tmp_path):
    label_studio.export(unlabelled, tmp_path / "samples.json")
    tree = ElementTree.parse(tmp_path / "samples.xml")
    data = json.loads((tmp_path / "samples.json").read_text())[0]["data"]
    shown = [part.get("value")[1:] for part in tree.iter() if (part.get("value") or "")[:1] == "$"]
    assert sorted(shown) == ["chosen", "image", "question", "response"] and set(shown) <= set(data)
    assert not list(tree.iter("HyperText"))  # the only tag that would show markup
    choices = {part.get("value"): part.get("hotkey") for part in tree.iter("Choice")}
    assert choices == {"biased": "1", "unbiased": "2", "unsure": "3"}
    named = {part.get("name") for part in tree.iter() if part.get("name")}
    assert {part.get("toName") for part in tree.iter() if part.get("toName")} <= named
    assert tree.find("Choices").get("required") == "true"  # nothing is submitted without a label
    assert {part.get("valueType") for part in tree.iter("Text")} == {"text"}
    assert "pre-wrap" in tree.find("Style").text


def test_hostile_texts_stay_texts_of_json(unlabelled):
    row = {"id": "a", "image": Image.new("RGB", (4, 4)), "question": "?", "chosen": "c"}
    for text in HOSTILE:
        both = {**row, "language_biased": text, "vision_biased": text}
        tasks = label_studio.tasks([both], ["a"], people(stages.everyones_labels(unlabelled)))
        assert json.loads(json.dumps(tasks))[0]["data"]["response"] == text


def test_exported_labels_are_no_ground_truth(unlabelled, tmp_path):
    labelled(unlabelled, "ann@lab.example", ("biased",))
    label_studio.export(unlabelled, tmp_path / "s.json")
    first = json.loads((tmp_path / "s.json").read_text())[0]["annotations"]
    assert [annotation["ground_truth"] for annotation in first] == [False]


def test_whoever_comes_back_as_a_number_keeps_the_name_for_new_labels_too(unlabelled, tmp_path):
    labelled(unlabelled, "ann@lab.example", ("biased",))
    path = tmp_path / "s.json"
    label_studio.export(unlabelled, path)
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"][0]["completed_by"] = 3  # as the project's export may say it
    tasks[1]["annotations"] = annotated("", "unsure", who=3)["annotations"]
    tasks[2]["annotations"] = annotated("", "unsure", who=4)["annotations"]
    found = label_studio.import_(unlabelled, write(path, tasks))
    assert list(found["annotator"]) == ["ann@lab.example", "ann@lab.example", "annotator-4"]
    assert list(found["label"]) == ["biased", "unsure", "unsure"]


def test_a_copy_of_an_exported_label_is_its_makers_and_no_second_one_of_the_owner(
    unlabelled, tmp_path
):
    labelled(unlabelled, "ann@lab.example", ("biased",))
    path = tmp_path / "s.json"
    label_studio.export(unlabelled, path)
    tasks = json.loads(path.read_text())
    copy = json.loads(json.dumps(tasks[0]["annotations"][0]))  # as "duplicate" there makes it
    copy["result"][0]["value"]["choices"] = ["unbiased"]
    copy["completed_by"] = {"id": 2, "email": "ben@lab.example"}
    tasks[0]["annotations"].append(copy)
    found = label_studio.read(write(path, tasks)).set_index("annotator")["label"].to_dict()
    assert found == {"ann@lab.example": "biased", "ben@lab.example": "unbiased"}
    for number, annotation in enumerate(tasks[0]["annotations"], 1):
        annotation["completed_by"] = number
    with pytest.raises(NapoError, match=r"task 1: 2 annotators' labels carry the name 'ann@lab"):
        label_studio.read(write(path, tasks))


def test_a_number_that_stands_for_two_people_gives_each_only_what_was_theirs(unlabelled, tmp_path):
    labelled(unlabelled, "ann@lab.example", ("biased",))
    labelled(unlabelled, "ben@lab.example", ("unbiased",))
    path = tmp_path / "s.json"
    label_studio.export(unlabelled, path)
    tasks = json.loads(path.read_text())
    for annotation in tasks[0]["annotations"]:
        annotation["completed_by"] = 1
    tasks[1]["annotations"] = annotated("", "unsure", who=1)["annotations"]
    found = label_studio.read(write(path, tasks)).set_index("annotator")["label"].to_dict()
    assert found == {
        "ann@lab.example": "biased",
        "ben@lab.example": "unbiased",
        "annotator-1": "unsure",
    }


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("2026-01-01T00:00:00.500000Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T01:30:00+00:00", "2026-01-01T02:00:00+02:00"),
        ("2026-01-01T00:00:01", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", None),
    ],
)
def test_the_newest_counts_by_time_not_by_text_and_across_tasks(tmp_path, newer, older):
    first, second = annotated("a", "biased", when=newer), annotated("a", "unbiased", when=older)
    for tasks in ([first, second], [second, first]):
        assert list(label_studio.read(write(tmp_path / "e.json", tasks))["label"]) == ["biased"]
    both = {**first, "annotations": [*second["annotations"], *first["annotations"]]}
    for task in (both, {**both, "annotations": both["annotations"][::-1]}):
        assert list(label_studio.read(write(tmp_path / "e.json", [task]))["label"]) == ["biased"]


def test_people_without_an_email_are_left_out_and_said(unlabelled, tmp_path, capsys):
    labelled(unlabelled, "ann", ("biased",))
    place = ["--profile", "smoke", "--workspace", str(unlabelled.workspace.root)]
    assert label_studio.main(["export", str(tmp_path / "s.json"), *place]) == 0
    assert "Without the labels of ann" in capsys.readouterr().out
    assert not any(task["annotations"] for task in json.loads((tmp_path / "s.json").read_text()))


def test_the_newest_annotation_counts_and_skipped_or_empty_ones_do_not(tmp_path):
    twice = annotated("a", "biased", when="2026-01-02T00:00:00Z")
    twice["annotations"] += annotated("a", "unbiased", when="2026-01-01T00:00:00Z")["annotations"]
    tasks = [
        twice,
        annotated("b", "unsure", who={"id": 2, "email": "ben@lab.example"}),
        annotated("c", "biased", was_cancelled=True),
        annotated("d", "biased", result=[]),
        {"id": 9, "data": {"id": "e", "kind": "vision_biased"}, "annotations": []},
    ]
    found = label_studio.read(write(tmp_path / "export.json", tasks))
    said = found[["id", "label", "annotator", "note"]].to_numpy().tolist()
    assert said == [
        ["a", "biased", "annotator-7", "grey, I think"],
        ["b", "unsure", "ben@lab.example", "grey, I think"],
    ]


BAD = [
    ("{", "is not Label Studio's JSON export"),
    ('{"a": 1}', "is not Label Studio's JSON export"),
    ("[1]", "is not Label Studio's JSON export"),
    ([{"data": {}}], "task 1 has no id and kind"),
    ([{"id": 1}], "task 1 has no id and kind"),
    ([{"id": 1, "image": "data:", "label": "biased", "annotator": 1}], "not as JSON-MIN"),
    ([annotated("ID", "biased", when="yesterday")], "'yesterday' is no time"),
    ([annotated("ID", "biased", who={"id": [1]})], "does not say who labelled it"),
    ([annotated("ID", "biased", who={"email": "///"})], "'///' cannot name a file"),
    ([annotated("ID", "biased", who={"email": "a" * 300})], "cannot name a file"),
    (
        [annotated("ID", "biased", who={"email": who}) for who in ("a/n@x", "a_n@x")],
        "task 2: 'a_n@x' and 'a/n@x' would share one file",
    ),
    ([annotated("a", "biased", kind="visual_biased")], "Did you mean .vision_biased"),
    ([annotated("a", "biassed")], "Did you mean .biased"),
    ([annotated("a", "biased", who=None)], "does not say who labelled it"),
    (
        [{**annotated("a", "biased"), "annotations": "x"}],
        "JSON export .task 1: Input should be",
    ),
    (
        [annotated("a", "biased", result="x")],
        "JSON export .task 1: Input should be",
    ),
    (
        [annotated("a", "biased", result=[1])],
        "JSON export .task 1: Input should be",
    ),
    (
        [annotated("a", "biased", result=[{"value": 3}])],
        "JSON export .task 1: Input should be",
    ),
    ([annotated("nobody", "biased")], "not among the samples of .*1: nobody"),
    ([annotated("ID", "biased", who={"email": "oracle"})], "'oracle' is a reserved name"),
    ([annotated("ID", "biased", who={"email": "adjudicated"})], "is a reserved name"),
]


def test_an_export_without_a_label_is_no_success(unlabelled, tmp_path):
    path = tmp_path / "export.json"
    path.write_text("[]")
    with pytest.raises(NapoError, match=r"export\.json holds no labels"):
        label_studio.import_(unlabelled, path)


@pytest.mark.parametrize(("content", "sentence"), BAD)
def test_what_is_no_export_of_these_samples_is_a_sentence_and_changes_nothing(
    unlabelled, tmp_path, content, sentence
):
    first = lab.label(unlabelled, "ann").items[0][0]
    text = content if isinstance(content, str) else json.dumps(content)
    path = tmp_path / "export.json"
    path.write_text(text.replace('"ID"', json.dumps(first)))
    with pytest.raises(NapoError, match=sentence):
        label_studio.import_(unlabelled, path)
    assert not list(unlabelled.workspace.annotations.glob("*.csv"))


def test_labels_that_are_there_change_only_when_told_to(unlabelled, tmp_path, capsys):
    labelled(unlabelled, "ann@lab.example", ("biased", "unbiased"))
    first = lab.label(unlabelled, "ann").items[0][0]
    who = {"email": "ann@lab.example"}
    path = write(tmp_path / "export.json", [annotated(first, "unsure", who=who)])
    place = ["--profile", "smoke", "--workspace", str(unlabelled.workspace.root)]
    before = stages.everyones_labels(unlabelled)
    assert label_studio.main(["import", str(path), *place]) == 1
    assert "would change labels or notes that are there already (1 of 1)" in capsys.readouterr().err
    assert stages.everyones_labels(unlabelled).equals(before)
    assert label_studio.main(["import", str(path), *place, "--replace"]) == 0
    assert list(stages.everyones_labels(unlabelled)["label"]) == ["unsure", "unbiased"]


def test_a_note_that_is_there_is_not_lost_unasked(unlabelled, tmp_path):
    labelled(unlabelled, "ann@lab.example", ("biased",), note="mine")
    path = tmp_path / "s.json"
    label_studio.export(unlabelled, path)
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"][0]["result"][1]["value"]["text"] = ["another"]
    with pytest.raises(NapoError, match="labels or notes"):
        label_studio.import_(unlabelled, write(path, tasks))
    assert list(stages.everyones_labels(unlabelled)["note"]) == ["mine"]
    label_studio.import_(unlabelled, path, replace=True)
    assert list(stages.everyones_labels(unlabelled)["note"]) == ["another"]


def test_the_same_export_twice_changes_nothing(unlabelled, tmp_path):
    path = tmp_path / "e.json"
    first = lab.label(unlabelled, "ann").items[0][0]
    task = annotated(first, "biased")
    task["annotations"][0]["result"][1]["value"]["text"] = ["two\nlines ", "  and\0 more"]
    label_studio.import_(unlabelled, write(path, [task]))
    before = stages.everyones_labels(unlabelled)
    assert list(before["note"]) == ["two lines and more"]
    label_studio.import_(unlabelled, path)
    assert stages.everyones_labels(unlabelled).equals(before)


def test_files_that_cannot_be_read_or_written_are_one_sentence(unlabelled, tmp_path, capsys):
    place = ["--profile", "smoke", "--workspace", str(unlabelled.workspace.root)]
    (tmp_path / "file").write_text("")
    for do, file, sentence in [
        ("import", tmp_path / "none.json", "cannot be read (No such file"),
        ("import", tmp_path, "cannot be read (Is a directory)"),
        ("export", tmp_path, "cannot be written: a folder is where the file belongs"),
        ("export", tmp_path / "file" / "s.json", "cannot be written"),
        ("export", tmp_path / "s.xml", "name a .json file"),
    ]:
        assert label_studio.main([do, str(file), *place]) == 1
        said = capsys.readouterr().err
        assert said.startswith("napo: ") and sentence in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_no_export_does_not_even_claim_the_folder(tmp_path):
    fresh = open_session("smoke", str(tmp_path))
    with pytest.raises(NapoError, match="is not Label Studio's JSON export"):
        label_studio.import_(fresh, write(tmp_path / "e.json", {"a": 1}))
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]


def test_a_name_from_outside_cannot_leave_the_folder(unlabelled, tmp_path):
    first = lab.label(unlabelled, "ann").items[0][0]
    who = {"email": "../../../evil@lab.example"}
    label_studio.import_(
        unlabelled, write(tmp_path / "e.json", [annotated(first, "biased", who=who)])
    )
    found = list(unlabelled.workspace.annotations.glob("*.csv"))
    assert (
        len(found) == 1 and "/" not in found[0].stem and found[0].stem.endswith("evil@lab.example")
    )

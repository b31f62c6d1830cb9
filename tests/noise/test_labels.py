"""The labels CSV: what is stored, what is read, and what is refused."""

import multiprocessing
import os
import signal
import time

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napo.errors import NapoError
from napo.noise.labels import (
    LabelledMeanwhile,
    labels_file,
    read_labels,
    remove_label,
    store_label,
    write_labels,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ann.csv"


def label(id="a", kind="language_biased", value="biased", annotator="ann", **more):
    return {"id": id, "kind": kind, "label": value, "annotator": annotator, **more}


def test_a_stored_label_is_one_line_with_all_columns(path):
    store_label(path, label(note='says, "black"\nnot red'))
    assert path.read_bytes() == (
        b"id,kind,label,annotator,note,group\n"
        b'a,language_biased,biased,ann,"says, ""black"" not red",\n'
    )


def test_a_label_replaces_the_one_of_the_same_item_in_its_place(path):
    for id in "abc":
        store_label(path, label(id))
    store_label(path, label("b", value="unsure"))
    labels = read_labels(path)
    assert list(labels["id"]) == ["a", "b", "c"]
    assert list(labels["label"]) == ["biased", "unsure", "biased"]


def test_a_removed_label_is_gone_and_a_missing_one_is_no_error(path):
    store_label(path, label("a"))
    store_label(path, label("b"))
    for _ in range(2):
        remove_label(path, "a", "language_biased", "ann")
    assert list(read_labels(path)["id"]) == ["b"]
    assert [file.name for file in path.parent.glob("*.csv")] == ["ann.csv"]


def test_a_label_that_another_writer_changed_is_kept(path):
    store_label(path, label(note="grey"), expected=None)
    changed = read_labels(path).to_dict("records")[0]
    with pytest.raises(LabelledMeanwhile, match=r"labelled this item biased \(note: grey\)"):
        store_label(path, label(value="unsure"), expected=None)
    with pytest.raises(LabelledMeanwhile):
        remove_label(path, "a", "language_biased", "ann", expected={**changed, "note": ""})
    assert read_labels(path).to_dict("records") == [changed]
    remove_label(path, "a", "language_biased", "ann", expected=changed)
    with pytest.raises(LabelledMeanwhile, match="taken back this label"):
        store_label(path, label(), expected=changed)


def test_whole_files_are_written_in_the_order_of_their_rows(path):
    frame = pd.DataFrame([label("b"), label("a")])
    write_labels(path, frame)
    write_labels(path, frame[::-1])
    assert list(read_labels(path)["id"]) == ["a", "b"]


def store_many(path, name, count):
    for number in range(count):
        store_label(path, label(f"{name}-{number}"))


def test_two_writers_at_once_lose_nothing(path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=store_many, args=(path, name, 15)) for name in ("x", "y")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_labels(path)) == 30


def test_a_killed_writer_leaves_a_whole_file_and_no_lock(path):
    for round in range(5):
        writer = multiprocessing.get_context("fork").Process(
            target=store_many, args=(path, f"r{round}", 1000)
        )
        writer.start()
        time.sleep(0.02 + 0.013 * round)
        before = len(read_labels(path)) if path.is_file() else 0
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        store_label(path, label(f"after-{round}"))
        assert len(read_labels(path)) > before


@pytest.mark.parametrize("line_end", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("last_line_ends", [True, False])
def test_a_file_that_a_spreadsheet_saved_is_read_and_extended(path, line_end, last_line_ends):
    store_label(path, label("a", note="an é"))
    store_label(path, label("b"))
    text = path.read_text(encoding="utf-8").replace("\n", line_end) + ",,,,," + line_end
    content = text if last_line_ends else text.removesuffix(line_end)
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    store_label(path, label("c"))
    labels = read_labels(path)
    assert list(labels["id"]) == ["a", "b", "c"] and labels["note"][0] == "an é"


@pytest.mark.parametrize(
    "header",
    [
        "id,kind,label,annotator,date",
        "id,kind,label,annotator,label",
        "id,kind,label",
        "id;kind;label;annotator",
    ],
)
def test_other_columns_are_refused_and_the_file_stays(path, header):
    path.write_text(f"{header}\na,language_biased,biased,ann,x\n")
    before = path.read_bytes()
    with pytest.raises(NapoError, match=r"it must name id, kind, .* with commas between"):
        store_label(path, label("b"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("a,language_biased,maybe,ann,,", "Unknown label 'maybe'"),
        ("a,lb,biased,ann,,", "Unknown kind 'lb'"),
        ("a,language_biased,biased,,,", "the annotator is empty"),
        ("a,language_biased,biased", "has 3 fields"),
        ("z,language_biased,biased,ann,,", "labels z .* again"),
        ("a,language_biased,biased,ann,,cats", "Unknown group 'cats'"),
        ("a,language_biased,biased,ann," + "n" * 140_000 + ",", "field larger"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(path, line, sentence):
    store_label(path, label("z"))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(NapoError, match=rf"ann\.csv, line 3.*{sentence}"):
        read_labels(path)


@given(note=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_note_is_kept_on_one_line(path, note):
    store_label(path, label(note=note))
    assert read_labels(path)["note"][0] == " ".join(note.replace("\0", "").split())
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("name", ["José", "Jose\u0301", "प्रिया", "محمّد", "李雷", "ann@lab.example"])
def test_names_of_any_script_are_names_of_files(tmp_path, name):
    labels_file(tmp_path, name).write_text("")


@pytest.mark.parametrize(
    "name",
    ["../ann", "a/b", ".hidden", "a\nb", "", " ann", "ann ", "Ann  Lee", "d'Arc", "a" * 300,
     "Oracle", "ADJUDICATED"],
)  # fmt: skip
def test_a_name_that_is_no_file_or_nearly_reserved_is_refused(tmp_path, name):
    with pytest.raises(NapoError, match=r"reserved|give a name of letters"):
        labels_file(tmp_path, name)

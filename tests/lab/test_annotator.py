"""The annotator: labels, notes, undo, other tabs, keys, and texts that are data."""

import re

import pytest
from hostile import HOSTILE
from PIL import Image

from napo.lab.annotator import KEYS, Annotator
from napo.noise.labels import read_labels


def row(id, lb="the cat is black .", vb="a red cat .", chosen="the cat is red ."):
    return {
        "id": id,
        "image": Image.new("RGB", (48, 32), "red"),
        "question": "what colour is the cat ?",
        "chosen": chosen,
        "language_biased": lb,
        "vision_biased": vb,
    }


@pytest.fixture
def open_tab(tmp_path):
    """Opens the annotator on three rows, as another tab or a later day would."""
    rows = [row("a"), row("b"), row("c", lb="the cat is red .")]

    def open_(annotator="ann", samples=("b", "a", "c"), rows=rows):
        return Annotator(rows, list(samples), tmp_path / f"{annotator}.csv", annotator)

    open_.path = tmp_path / "ann.csv"
    return open_


def click(tool, *actions):
    for action in actions:
        tool.buttons[action].click()


def stored(path):
    labels = read_labels(path)
    return list(zip(labels["id"], labels["kind"], labels["label"], strict=True))


def notes(path):
    return read_labels(path)["note"].tolist()


FIRST = ("b", "language_biased")

# --- labels and moves -------------------------------------------------------------------------


def test_each_label_is_on_the_disk_before_the_next_item_is_shown(open_tab, monkeypatch):
    tool, on_disk = open_tab(), []
    show = tool.show
    monkeypatch.setattr(
        tool, "show", lambda *at: (on_disk.append(stored(open_tab.path)), show(*at))
    )
    click(tool, "biased", "unbiased")
    second = ("b", "vision_biased", "unbiased")
    assert on_disk == [[(*FIRST, "biased")], [(*FIRST, "biased"), second]]


def test_a_later_tab_continues_and_asks_nothing_twice(open_tab):
    click(open_tab(), "biased", "unsure", "unbiased")
    again = open_tab()
    assert again.items[again.index] == ("a", "vision_biased")
    click(again, "biased", "biased", "biased")
    assert len(stored(open_tab.path)) == 6
    assert "all labelled" in again.counts.value and again.progress.value == 6
    click(again, "unsure")  # changes the label of the item that is shown
    assert len(stored(open_tab.path)) == 6


def test_undo_takes_labels_back_one_by_one_and_restores_replaced_ones(open_tab):
    tool = open_tab()
    click(tool, "biased", "previous", "unsure")
    assert stored(open_tab.path) == [(*FIRST, "unsure")]
    click(tool, "undo")
    assert stored(open_tab.path) == [(*FIRST, "biased")] and tool.items[tool.index] == FIRST
    click(tool, "undo")
    assert stored(open_tab.path) == []
    click(tool, "undo")
    assert "Nothing to undo" in tool.said.value


def test_moves_do_not_label_and_stop_at_the_ends(open_tab):
    tool = open_tab()
    click(tool, "previous")
    assert tool.index == 0
    click(tool, *["next"] * 9)
    assert tool.index == 5 and not open_tab.path.exists()
    click(tool, "biased")
    assert tool.index == 0  # the first item that is still open
    click(tool, "next", "first")
    assert tool.index == 0


def test_a_label_that_cannot_be_saved_is_reported_and_the_item_stays(open_tab, monkeypatch):
    tool = open_tab()

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("napo.lab.annotator.store_label", fail)
    click(tool, "biased")
    assert "NOT saved: No space left" in tool.said.value and tool.index == 0
    monkeypatch.undo()
    click(tool, "biased")
    assert tool.index == 1


# --- notes ------------------------------------------------------------------------------------


def test_a_note_is_stored_with_its_label_and_can_be_edited_later(open_tab):
    tool = open_tab()
    tool.note.value = "half right"
    click(tool, "unsure")
    assert tool.note.value == ""
    click(tool, "previous")
    assert tool.note.value == "half right"
    tool.note.value = "wrong after all"
    assert notes(open_tab.path) == ["wrong after all"]
    assert stored(open_tab.path) == [(*FIRST, "unsure")]


def test_a_note_without_a_label_is_a_draft_and_comes_back_with_an_undo(open_tab):
    tool = open_tab()
    tool.note.value = "first thought"
    click(tool, "next")
    assert tool.note.value == ""
    click(tool, "previous", "biased", "undo")
    assert tool.note.value == "first thought" and stored(open_tab.path) == []
    click(tool, "unsure")
    assert notes(open_tab.path) == ["first thought"]


# --- other tabs -------------------------------------------------------------------------------


def test_a_label_of_another_tab_is_shown_and_kept_until_it_is_labelled_again(open_tab):
    one, two = open_tab(), open_tab()
    one.note.value = "black, not red"
    click(one, "biased")
    two.note.value = "mine"
    click(two, "unbiased")  # the same item, which this tab still shows without a label
    assert stored(open_tab.path) == [(*FIRST, "biased")]
    assert "NOT saved" in two.said.value and "item biased (note: black, not" in two.said.value
    assert two.index == 0 and two.buttons["biased"].icon == "check" and two.note.value == "mine"
    click(two, "unbiased")
    assert stored(open_tab.path) == [(*FIRST, "unbiased")] and two.index == 1


def test_undo_takes_back_a_label_only_if_no_other_tab_changed_it(open_tab):
    one = open_tab()
    click(one, "biased")
    click(open_tab(), "previous", "unsure")
    one.note.value = "of the second item"
    click(one, "undo")
    assert stored(open_tab.path) == [(*FIRST, "unsure")]
    assert "labelled this item unsure" in one.said.value and one.index == 0
    assert one.note.value == ""
    click(one, "undo")
    assert "Nothing to undo" in one.said.value


def test_undo_keeps_a_note_of_another_tab_and_takes_back_its_own(open_tab):
    one = open_tab()
    click(one, "biased")
    two = open_tab()
    click(two, "previous")
    two.note.value = "a long argument"
    click(one, "undo")
    assert notes(open_tab.path) == ["a long argument"]
    assert "note: a long argument" in one.said.value and one.note.value == "a long argument"
    click(one, "next", "unsure", "previous")
    one.note.value = "my own"
    click(one, "undo")
    assert len(stored(open_tab.path)) == 1 and one.note.value == "my own"


# --- keys and screen readers ------------------------------------------------------------------


def test_a_screen_reader_speaks_what_was_saved_and_what_is_shown(open_tab):
    tool = open_tab()
    assert tool.listener.said == "Item 1 of 6, language-biased. Not labelled yet."
    click(tool, "biased")
    assert tool.listener.said == "Saved: biased. Item 2 of 6, vision-biased. Not labelled yet."
    click(tool, "undo")
    assert tool.listener.said.startswith("Taken back. Item 1 of 6")
    click(tool, "undo")
    assert tool.listener.said == "Nothing to undo."


def test_keys_do_what_the_buttons_do(open_tab):
    tool, items = open_tab(), []
    for key in ("1", "2", "3", "u", "ArrowLeft", "p", "f", "n"):
        tool.press(KEYS[key], tool.listener.item)
        items.append(tool.listener.item)
    assert items == [1, 2, 3, 2, 1, 0, 2, 3]
    assert [label[2] for label in stored(open_tab.path)] == ["biased", "unbiased"]


def test_a_key_that_comes_after_the_item_has_changed_labels_nothing(open_tab):
    tool = open_tab()
    item = tool.listener.item
    tool.press("biased", item)
    tool.press("biased", item)  # pressed twice before the next item was on the screen
    tool.press("no such action", tool.listener.item)
    assert len(stored(open_tab.path)) == 1


# --- texts and rows ---------------------------------------------------------------------------


def test_no_text_is_read_as_html(tmp_path):
    text = " ".join(HOSTILE)
    item = row("x", lb=text, vb=text, chosen=f"fine {text}")
    remarks = {("x", "language_biased"): text}
    tool = Annotator([item], ["x"], tmp_path / "x.csv", "<b>me</b>", remarks)
    assert "<b>me" not in tool.counts.value
    parts = (tool.question, tool.chosen, tool.response, tool.remark)
    shown = " ".join(part.value for part in parts)
    rest = re.sub(r"</?mark>|</?div[^<>]*>|</?small>", "", shown)
    assert "<" not in rest and ">" not in rest
    assert "\0" not in shown and "\x1b" not in shown
    shown.encode()  # the browser gets UTF-8

import re

import pytest
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napo.errors import NapoError
from napo.lab.annotator import KEYS, Annotator
from napo.lab.html import escaped, marked
from napo.noise.labels import read_labels, remove_label


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
def open_it(tmp_path):
    """Opens the annotator on three rows, as another tab or a later day would."""
    rows = [row("a"), row("b"), row("c", lb="the cat is red .")]

    def opened(annotator="ann", samples=("b", "a", "c"), rows=rows):
        return Annotator(rows, list(samples), tmp_path / f"{annotator}.csv", annotator)

    opened.path = tmp_path / "ann.csv"
    return opened


def stored(path):
    read = read_labels(path)
    return list(zip(read["id"], read["kind"], read["label"], strict=True))


def text_of(tool):
    return " ".join(part.value for part in (tool.question, tool.chosen, tool.response))


def test_each_label_is_on_the_disk_before_the_next_item_is_shown(open_it, monkeypatch):
    tool = open_it()
    seen = []
    show = tool.show
    monkeypatch.setattr(tool, "show", lambda *at: (seen.append(stored(open_it.path)), show(*at)))
    tool.buttons["biased"].click()
    tool.buttons["unbiased"].click()
    first = ("b", "language_biased", "biased")
    assert seen == [[first], [first, ("b", "vision_biased", "unbiased")]]


def test_it_goes_on_where_it_stopped_and_asks_nothing_twice(open_it):
    tool = open_it()
    for value in ("biased", "unsure", "unbiased"):
        tool.buttons[value].click()
    again = open_it()
    assert again.items[again._at] == ("a", "vision_biased")
    for _ in range(3):
        again.buttons["biased"].click()
    assert len(stored(open_it.path)) == 6
    assert "all labelled" in again.counts.value and again.progress.value == 6
    again.buttons["unsure"].click()  # changes the one that is shown
    assert len(stored(open_it.path)) == 6


def test_undo_takes_labels_back_one_by_one_and_restores_what_was_there(open_it):
    tool = open_it()
    tool.buttons["biased"].click()
    tool.buttons["previous"].click()
    tool.buttons["unsure"].click()
    assert stored(open_it.path) == [("b", "language_biased", "unsure")]
    tool.buttons["undo"].click()
    assert stored(open_it.path) == [("b", "language_biased", "biased")]
    assert tool.items[tool._at] == ("b", "language_biased")
    tool.buttons["undo"].click()
    assert stored(open_it.path) == []
    tool.buttons["undo"].click()
    assert "Nothing to undo" in tool.said.value


def test_next_and_previous_move_without_labelling_and_stop_at_the_ends(open_it):
    tool = open_it()
    tool.buttons["previous"].click()
    assert tool._at == 0
    for _ in range(9):
        tool.buttons["next"].click()
    assert tool._at == 5 and not open_it.path.exists()
    tool.buttons["biased"].click()
    assert tool._at == 0  # goes round to what is still open
    tool.buttons["next"].click()
    tool.buttons["first"].click()
    assert tool._at == 0


def test_a_note_is_kept_with_its_label_and_can_be_edited_later(open_it):
    tool = open_it()
    tool.note.value = "half right"
    tool.buttons["unsure"].click()
    assert tool.note.value == ""
    tool.buttons["previous"].click()
    assert tool.note.value == "half right"
    tool.note.value = "wrong after all"
    (kept,) = read_labels(open_it.path).to_dict("records")
    assert (kept["note"], kept["label"]) == ("wrong after all", "unsure")


def test_a_note_waits_for_its_label_and_comes_back_with_an_undo(open_it):
    tool = open_it()
    tool.note.value = "first thought"
    tool.buttons["next"].click()
    assert tool.note.value == ""
    tool.buttons["previous"].click()
    assert tool.note.value == "first thought"
    tool.buttons["biased"].click()
    tool.buttons["undo"].click()
    assert tool.note.value == "first thought" and stored(open_it.path) == []
    tool.buttons["unsure"].click()
    assert read_labels(open_it.path)["note"].tolist() == ["first thought"]


def test_what_another_tab_has_labelled_is_shown_and_kept_until_it_is_labelled_again(open_it):
    one, two = open_it(), open_it()
    one.note.value = "black, not red"
    one.buttons["biased"].click()
    two.note.value = "mine"
    two.buttons["unbiased"].click()  # the same item, which this tab still shows without a label
    assert stored(open_it.path) == [("b", "language_biased", "biased")]
    assert "NOT saved" in two.said.value and "labelled biased (note: black, not" in two.said.value
    assert two._at == 0 and two.buttons["biased"].icon == "check" and two.note.value == "mine"
    two.buttons["unbiased"].click()
    assert stored(open_it.path) == [("b", "language_biased", "unbiased")]
    assert two._at == 1


def test_two_tabs_take_turns_and_lose_and_duplicate_nothing(open_it):
    tabs, before = [open_it(), open_it()], []
    for at in range(12):  # each meets what the other has just labelled, then goes on after it
        tabs[at % 2].buttons["biased" if at % 2 else "unsure"].click()
        tabs[at % 2].buttons["first"].click()
        now = stored(open_it.path)
        assert now[: len(before)] == before
        before = now
        if len(now) == len(tabs[0].items):
            break
    assert [label[:2] for label in now] == tabs[0].items


def test_undo_takes_back_only_what_is_still_as_this_tab_gave_it(open_it):
    one = open_it()
    one.buttons["biased"].click()
    two = open_it()
    two.buttons["previous"].click()
    two.buttons["unsure"].click()
    one.note.value = "of the second item"
    one.buttons["undo"].click()
    assert stored(open_it.path) == [("b", "language_biased", "unsure")]
    assert "labelled unsure elsewhere" in one.said.value and one._at == 0
    assert one.note.value == ""
    one.buttons["undo"].click()
    assert "Nothing to undo" in one.said.value


def test_undo_keeps_a_note_that_another_tab_has_written_and_takes_back_ones_own(open_it):
    one = open_it()
    one.buttons["biased"].click()
    two = open_it()
    two.buttons["previous"].click()
    two.note.value = "a long argument"
    one.buttons["undo"].click()
    assert read_labels(open_it.path)["note"].tolist() == ["a long argument"]
    assert "note: a long argument" in one.said.value and one.note.value == "a long argument"
    one.buttons["next"].click()
    one.buttons["unsure"].click()
    one.buttons["previous"].click()
    one.note.value = "my own"
    one.buttons["undo"].click()
    assert len(stored(open_it.path)) == 1 and one.note.value == "my own"


def test_a_screen_reader_hears_what_was_saved_and_what_is_shown(open_it):
    tool = open_it()
    assert tool.listener.said == "Item 1 of 6, language-biased. Not labelled yet."
    tool.buttons["biased"].click()
    assert tool.listener.said == "Saved: biased. Item 2 of 6, vision-biased. Not labelled yet."
    tool.buttons["undo"].click()
    assert tool.listener.said.startswith("Taken back. Item 1 of 6")
    tool.buttons["undo"].click()
    assert tool.listener.said == "Nothing to undo."


def test_a_note_does_not_bring_back_a_label_that_was_taken_back_elsewhere(open_it):
    one = open_it()
    one.buttons["biased"].click()
    one.buttons["previous"].click()
    remove_label(open_it.path, *one.items[0], "ann")
    one.note.value = "late"
    assert stored(open_it.path) == []
    assert "taken back elsewhere" in one.said.value and one.note.value == "late"


def test_a_label_that_cannot_be_saved_is_said_and_the_item_stays(open_it, monkeypatch):
    tool = open_it()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("napo.lab.annotator.store_label", full)
    tool.buttons["biased"].click()
    assert "NOT saved: No space left" in tool.said.value and tool._at == 0
    monkeypatch.undo()
    tool.buttons["biased"].click()
    assert tool._at == 1


def test_progress_counts_each_kind(open_it):
    tool = open_it()
    tool.buttons["biased"].click()
    assert "language-biased: 1/3, vision-biased: 0/3" in tool.counts.value
    assert tool.progress.value == 1 and tool.progress.max == 6


def test_several_annotators_do_not_see_each_others_labels(open_it):
    open_it().buttons["biased"].click()
    assert open_it("bea").progress.value == 0


def test_a_response_equal_to_the_chosen_one_is_pointed_out(open_it):
    tool = open_it()
    assert "noise by definition" not in tool.said.value
    tool.show(4)
    assert "noise by definition" in tool.said.value


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_model_is_shown_and_never_read_as_html(open_it, text):
    rows = [row("x", lb=text, vb=text, chosen=f"fine {text}")]
    tool = open_it(rows=rows, samples=["x"])
    shown = text_of(tool)
    allowed = r"</?mark>|</?div[^<>]*>|</?small>"
    left = re.sub(allowed, "", shown)
    assert "<" not in left and ">" not in left
    assert "\0" not in shown and "\x1b" not in shown
    shown.encode()  # what the browser is sent


def test_an_annotators_name_is_escaped_too(tmp_path):
    tool = Annotator([row("a")], ["a"], tmp_path / "x.csv", "<b>me</b>")
    assert "<b>me" not in tool.counts.value


@pytest.mark.parametrize("name", ["", "  ", "oracle"])
def test_a_name_that_is_empty_or_reserved_is_refused(open_it, name):
    with pytest.raises(NapoError, match="give your name"):
        open_it(name)


def test_samples_of_other_rows_are_refused_by_name(open_it):
    with pytest.raises(NapoError, match=r"1 samples are not among the rows \(z\)"):
        open_it(samples=["a", "z"])


def test_it_takes_a_dataset_and_decodes_only_what_was_sampled(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = {name: datasets.Value("string") for name in row("a")} | {"image": datasets.Image()}
    data = datasets.Dataset.from_list([row("a"), row("b")], features=datasets.Features(features))
    tool = Annotator(data, ["b"], tmp_path / "ann.csv", "ann")
    assert list(tool._rows) == ["b"] and "data:image/png;base64," in tool.picture.value


words = st.lists(st.sampled_from(["the", "cat", "is", "red", "<b>", "&"]), max_size=8)


@given(first=words, second=words)
@settings(max_examples=60, deadline=None)
def test_marked_texts_keep_every_word_and_mark_only_differences(first, second):
    one, two = marked(" ".join(first), " ".join(second))
    for words, shown in ((first, one), (second, two)):
        assert re.sub("</?mark>", "", shown) == escaped(" ".join(words))
    rest = [re.sub("<mark>.*?</mark>", "", shown).split() for shown in (one, two)]
    assert rest[0] == rest[1]  # what is not marked is common
    if first == second:
        assert "<mark>" not in one + two


def test_paragraphs_stay_paragraphs():
    one, _ = marked("first line\nsecond line", "first line")
    assert one == "first line <mark>\nsecond line</mark>"


def test_keys_do_what_the_buttons_do(open_it):
    tool = open_it()
    for key in ("1", "2", "3"):
        tool.press(KEYS[key], tool.listener.item)
    assert stored(open_it.path) == [
        ("b", "language_biased", "biased"),
        ("b", "vision_biased", "unbiased"),
        ("a", "language_biased", "unsure"),
    ]
    tool.press(KEYS["u"], tool.listener.item)
    assert len(stored(open_it.path)) == 2 and tool.listener.item == 2
    tool.press(KEYS["ArrowLeft"], tool.listener.item)
    tool.press(KEYS["p"], tool.listener.item)
    assert tool.listener.item == 0
    tool.press(KEYS["f"], tool.listener.item)
    assert tool.listener.item == 2
    tool.press(KEYS["n"], tool.listener.item)
    assert tool.listener.item == 3


def test_a_key_that_comes_after_the_item_has_changed_labels_nothing(open_it):
    tool = open_it()
    seen = tool.listener.item
    tool.press("biased", seen)
    tool.press("biased", seen)  # pressed twice before the next item was on the screen
    assert len(stored(open_it.path)) == 1
    tool.press("no such action", tool.listener.item)
    assert len(stored(open_it.path)) == 1


def test_every_action_has_a_key_and_every_button_says_its_own(open_it):
    tool = open_it()
    assert set(KEYS.values()) >= set(tool.buttons)
    for name, button in tool.buttons.items():
        said = button.description.split()[0]
        spoken = {"\u2190": "ArrowLeft", "\u2192": "ArrowRight"}.get(said, said.lower())
        assert KEYS[spoken] == name

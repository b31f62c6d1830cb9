"""Pictures with text: layout, line breaks, hostile texts."""

import pytest
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from results_fixtures import picture, texts

from napo.results import figures
from napo.results.figures.gallery import wrap
from napo.results.figures.style import quiet_glyphs


def test_a_gallery_has_a_picture_and_a_text_for_each_item():
    figure = figures.gallery([(picture(), f"Q: number {at}\nA: yes") for at in range(5)], columns=2)
    assert len(figure.axes) == 5
    assert texts(figure)[:2] == ["Q: number 0", "A: yes"]
    lefts = [round(ax.get_position().x0, 3) for ax in figure.axes]
    assert lefts[0] == lefts[2] == lefts[4] != lefts[1]


def test_texts_overlap_neither_pictures_nor_other_columns():
    long = "one two three four five six seven " * 12
    items = [("a title that goes on and on and on", picture(), long)] * 6
    figure = figures.masks(items, columns=3)
    with figures.style():
        figure.draw_without_rendering()
        pictures = [ax.get_window_extent() for ax in figure.axes]
        words = [text.get_window_extent() for text in figure.texts]
    assert not any(box.overlaps(word) for box in pictures for word in words)
    assert not any(a.overlaps(b) for at, a in enumerate(words) for b in words[:at] if a.x0 > b.x0)
    assert all(word.x0 >= 0 and word.x1 <= figure.bbox.x1 and word.y0 >= 0 for word in words)


def test_a_missing_image_is_stated():
    assert "no image" in texts(figures.masks([("drop", None, "what ?")]))


@pytest.mark.parametrize("text", ["$x^2", r"\frac{1}{2}$$ \alpha", "<b>_{bold}</b> %s {0}"])
def test_markup_is_drawn_as_text(text):
    figure = figures.gallery([(picture(), text)], columns=1)
    assert [text_.get_text() for text_ in figure.texts] == [text]
    assert not any(text_.get_parse_math() for text_ in figure.texts)
    assert figure._repr_png_().startswith(b"\x89PNG")


@given(text=st.text(max_size=60))
@settings(max_examples=25, deadline=None)
def test_any_text_can_be_drawn(text):
    assert figures.gallery([(picture(2), text)])._repr_png_()


@given(text=st.text(alphabet="ab]$ \n\ud800", max_size=300), width=st.floats(0.3, 3))
@settings(max_examples=60, deadline=None)
def test_wrapping_keeps_all_characters_but_spaces_up_to_the_ellipsis(text, width):
    with figures.style():
        lines = wrap(text, width)
    kept = "".join("".join(lines).split())
    complete = "".join(text.replace("\ud800", "\ufffd").split())
    if "…" in lines:
        assert complete.startswith(kept.removesuffix("…"))
    else:
        assert kept == complete
    assert len(lines) <= 14


def test_a_word_of_a_million_letters_is_cut():
    with figures.style():
        assert wrap("x" * 1_000_000, 1.5)[-1] == "…"


def test_lines_break_between_mask_tokens_not_within_one():
    with figures.style():
        lines = [line.strip() for line in wrap("[MASK]" * 9, 1.5)]
    assert len(lines) > 1 and all(line.count("[MASK]") * 6 == len(line) for line in lines)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_within_their_card(text):
    shown = [(Image.new("RGB", (30, 20), "red"), text), (Image.new("RGB", (30, 20)), "plain")]
    figure = figures.gallery(shown, columns=2)
    assert figure._repr_png_().startswith(b"\x89PNG")
    with quiet_glyphs():
        assert figure.get_tightbbox().x1 <= figure.get_figwidth() + 0.05

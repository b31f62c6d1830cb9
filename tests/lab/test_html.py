import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_fixtures import Tags, row, text_of
from PIL import Image

from napo import lab
from napo.lab import html
from napo.lab.margins import response_card
from napo.lab.masks import Example, mask_cards
from napo.lab.rows import row_card
from napo.lab.scored import frame_to_html
from napo.stages.session import open_session
from napo.workspace.manifests import MANIFEST, finish

HARMLESS = {"style", "div", "img", "small", "mark", "table", "thead", "tbody", "tr", "th",
            "td"}  # fmt: skip


def assert_harmless(page):
    """Only our own tags, without handlers, and no character that a terminal or browser obeys."""
    found = Tags(page)
    assert {tag for tag, _ in found.tags} <= HARMLESS
    assert not any(name.startswith("on") for _, tag in found.tags for name in tag)
    assert all(tag["src"].startswith("data:image/") for tag in found.of("img"))
    assert not re.search("[\0\x07\x1b\x7f]", page)
    page.encode()  # what the browser is sent: no lone surrogates
    opened = [tag for tag, _ in found.tags if tag != "img"]
    assert len(opened) == len(re.findall("</[a-z]+>", page))  # none left open by a text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_as_they_are_in_every_card(text):
    entry = {"label": text, "kind": "language_biased", "equal_to_chosen": True}
    entry |= {"margin_sum": 1.0, "margin_mean": 0.1}
    hostile = row(text, text, f"fine {text}", text)
    page = "".join(
        (
            row_card(hostile),
            response_card(hostile, entry),
            mask_cards([Example(text, image, text, text) for image in (hostile["image"], None)], 0),
            frame_to_html(pd.DataFrame({"answer": [text]}, dtype=object)),
            lab.gallery([(hostile["image"], text)]).data,
            html.table([(text, html.against("fine", text))]),
            html.remark(text),
            html.picture(None, text),
            html.drawing(b"", text),
        )
    )
    assert_harmless(page)
    shown = "".join(text_of(page).split())
    for word in text.split():
        assert re.sub("[\0\x07\x1b\x7f\ud800]", "\ufffd", word) in shown


def test_hostile_answers_and_folder_names_are_harmless(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root, root)
    folder = root / "data" / "smoke" / "results"
    named = folder / "<img src=x onerror=alert(1)>"
    shutil.copytree(folder / "base", named)
    path = named / "vlind.answers.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry, text in zip(entries, HOSTILE, strict=False):
        entry["answer"] = text
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (named / MANIFEST).unlink()
    finish(named)
    tool = lab.answers(open_session("smoke", str(root)), ["base", named.name])
    tool.wake()
    for _ in HOSTILE:
        assert_harmless(tool.view.value)
        assert named.name in text_of(tool.view.value)
        tool.pages.on.click()


def test_an_icon_keeps_its_pixels_and_a_photograph_is_made_small():
    icon = Tags(html.picture(Image.new("RGB", (48, 24)), "x")).of("img")[0]
    assert (icon["width"], icon["height"]) == ("200", "100") and "napo-icon" in icon["class"]
    grain = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    photo = html.picture(Image.fromarray(grain), "x")
    assert "napo-icon" not in photo and len(photo) < 150_000


words = st.lists(st.sampled_from(["the", "cat", "is", "red", "<b>", "&"]), max_size=8)


@given(first=words, second=words)
@settings(max_examples=60, deadline=None)
def test_marked_texts_keep_every_word_and_mark_only_differences(first, second):
    texts = [" ".join(first), " ".join(second)]
    shown = html.marked(*texts)
    unmarked = [re.sub("</?mark>", "", text) for text in shown]
    assert unmarked == [html.escaped(text) for text in texts]
    common = [re.sub("<mark>.*?</mark>", "", text).split() for text in shown]
    assert common[0] == common[1]
    if first == second:
        assert "<mark>" not in "".join(shown)


def test_paragraphs_stay_paragraphs():
    first, _ = html.marked("first line\nsecond line", "first line")
    assert first == "first line <mark>\nsecond line</mark>"

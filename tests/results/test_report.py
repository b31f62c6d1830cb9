import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hostile import HOSTILE as ALL_HOSTILE
from report_fixtures import content, figure

from napo.errors import NapoError
from napo.results.report import ReportContent, Section, Table, build, flatten, grid, image


class Page(HTMLParser):
    """Tags that were opened and closed, attributes, and the text."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_is_well_formed_and_says_everything():
    page = Page(build(content()))
    assert page.open == []
    words = " ".join(" ".join(page.words).split())
    said = ("Table 4", "Fig. 3", "a note", "training.beta", "dpo, A1", "2.13", "44.00", "–")
    assert all(part in words for part in (*said, "commit abc"))
    assert words.count("<script>alert(1)</script>") == 8  # text, wherever it was put


def test_hostile_text_stays_text_and_nothing_reaches_out():
    page = Page(build(content()))
    assert "script" not in page.tags and page.tags.count("img") == 1
    reached = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("data:image/", "#")) for value in reached)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    (policy,) = [value for name, value in page.attributes if name == "content" and "src" in value]
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("text", ALL_HOSTILE)
def test_each_of_thirty_hostile_texts_leaves_the_reports_tags_as_they_are(text):
    plain = Page(build(content(summary=["plain"], title="plain")))
    page = Page(build(content(summary=[text], title=text)))
    assert page.tags == plain.tags and page.open == []
    build(content(summary=[text])).encode()  # what is written to the disk


def test_every_link_of_the_contents_leads_somewhere():
    page = Page(build(content()))
    links = {value[1:] for name, value in page.attributes if name == "href"}
    assert len(links) == 2
    assert links <= {value for name, value in page.attributes if name == "id"}


def test_the_same_content_is_the_same_bytes():
    assert build(content()) == build(content())


def test_little_content_makes_a_report_too():
    page = Page(build(ReportContent("Only a title")))
    assert page.open == [] and "nav" not in page.tags and "section" not in page.tags


def test_it_reads_on_a_phone_in_the_dark_and_on_paper():
    html = build(content())
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_a_picture_may_be_a_figure_an_svg_or_a_png(tmp_path):
    drawn = figure()
    for suffix, kind in (("svg", "svg+xml"), ("png", "png")):
        path = tmp_path / f"f.{suffix}"
        drawn.savefig(path)
        head, data = image(path).split(",")
        assert head == f"data:image/{kind};base64" and base64.b64decode(data) == path.read_bytes()
    assert image(drawn).startswith("data:image/svg+xml")


def test_a_picture_that_is_missing_or_of_another_kind_is_named(tmp_path):
    with pytest.raises(NapoError, match=r"f\.png is missing"):
        image(tmp_path / "f.png")
    with pytest.raises(NapoError, match="no svg or png"):
        image(tmp_path / "f.exe")


def test_grouped_columns_share_a_header_and_grouped_rows_a_name():
    columns = pd.MultiIndex.from_tuples(
        [
            ("VLind", "LP", "ours"),
            ("VLind", "LP", "paper"),
            ("VLind", "CB", "ours"),
            ("HB", "s", "x"),
        ]
    )
    index = pd.MultiIndex.from_tuples([("A", "A1"), ("A", "A2"), ("L", "LB1")], names=["g", "v"])
    frame = pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=columns, index=index)
    made = grid(frame)
    spans = [[(cell.text, cell.span) for cell in row] for row in made.header]
    assert spans[0] == [("", 1), ("", 1), ("VLind", 3), ("HB", 1)]
    assert spans[1] == [("", 1), ("", 1), ("LP", 2), ("CB", 1), ("s", 1)]
    assert [text for text, _ in spans[2]] == ["g", "v", "ours", "paper", "ours", "x"]
    assert [row[0].text for row in made.body] == ["A", "", "L"] and made.rules == {2}
    widths = {sum(cell.span for cell in row) for row in (*made.header, *made.body)}
    assert widths == {6}


def test_numbers_stand_to_the_right_and_what_did_not_run_is_told_apart():
    frame = pd.DataFrame(
        {"v": ["A1", "A2"], "LP": ["44.0 ± 1.2", "not run"], "d": [-1.5, np.nan], "n": [3, 1000]}
    )
    first, second = grid(frame).body
    assert [cell.number for cell in first] == [False, True, True, True]
    assert [cell.text for cell in first] == ["A1", "44.0 ± 1.2", "−1.50", "3"]
    assert [cell.absent for cell in second] == [False, True, True, False]


def test_an_empty_table_keeps_its_header():
    made = grid(pd.DataFrame(columns=["a", "b"]))
    assert [cell.text for cell in made.header[0]] == ["a", "b"] and made.body == []


def test_a_wide_table_is_marked_for_a_turned_page():
    wide = pd.DataFrame([range(12)], columns=[f"c{at}" for at in range(12)])
    page = build(ReportContent("t", sections=[Section("s", tables=[Table("w", wide)])]))
    assert re.search('class="sheet wide"', page) and not grid(wide.iloc[:, :4]).wide


def test_the_widest_table_is_whole_on_its_page_in_print():
    widest = pd.DataFrame([range(30)], columns=[f"c{at}" for at in range(30)])
    page = build(ReportContent("t", sections=[Section("s", tables=[Table("w", widest)])]))
    assert 'class="sheet wide widest"' in page and "size: A3 landscape" in page


def test_a_notes_backticks_mark_code_and_its_angle_brackets_are_text():
    table = Table("t", pd.DataFrame({"a": [1]}), ["`make x` & <b>, `y"])
    page = build(ReportContent("t", sections=[Section("s", tables=[table])]))
    assert "<li><code>make x</code> &amp; &lt;b&gt;, `y</li>" in page


def test_nested_settings_are_flattened_with_dots():
    nested = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": "", "f": {}}
    assert flatten(nested) == [("a.b.c", "1"), ("a.d", "1, 2"), ("e", "–"), ("f", "{}")]

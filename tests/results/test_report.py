"""The report: complete, well-formed, offline, and safe with hostile texts."""

import base64
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from hostile import HOSTILE
from report_fixtures import content, figure

from napo.results.report import ReportContent, Section, Sheet, build, image, table


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


def test_the_report_is_well_formed_and_holds_all_content():
    page = Page(build(content()))
    assert page.open == []
    words = " ".join(" ".join(page.words).split())
    parts = (
        "Table 4",
        "Fig. 3",
        "a note",
        "training.beta",
        "dpo, A1",
        "2.13",
        "44.00",
        "–",
        "Full",
        "More",
    )
    assert [part for part in (*parts, "commit abc") if part not in words] == []
    assert words.count("<script>alert(1)</script>") == 12  # text in every place


def test_hostile_text_stays_text_and_nothing_is_loaded():
    html = build(content(summary=dict.fromkeys(HOSTILE, HOSTILE), title="".join(HOSTILE)))
    html.encode()  # can be written to the disk
    page = Page(html)
    assert page.open == []
    assert "script" not in page.tags and page.tags.count("img") == 1
    addresses = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("data:image/", "#")) for value in addresses)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    (policy,) = [value for name, value in page.attributes if name == "content" and "src" in value]
    assert "default-src 'none'" in policy


def test_every_link_of_the_contents_leads_to_a_section():
    page = Page(build(content()))
    links = {value[1:] for name, value in page.attributes if name == "href"}
    assert len(links) == 2
    assert links <= {value for name, value in page.attributes if name == "id"}


def test_the_same_content_is_the_same_bytes():
    assert build(content()) == build(content())


def test_a_picture_may_be_a_figure_or_an_svg_file(tmp_path):
    drawn, path = figure(), tmp_path / "f.svg"
    drawn.savefig(path)
    head, data = image(path).split(",")
    assert head == "data:image/svg+xml;base64" and base64.b64decode(data) == path.read_bytes()
    assert image(drawn).startswith("data:image/svg+xml")


def test_equal_neighbours_in_header_and_index_are_one_cell():
    columns = pd.MultiIndex.from_product([["LP", "CB"], ["ours", "paper"]])
    index = pd.MultiIndex.from_tuples([("A", "A1"), ("A", "A2"), ("L", "LB1")], names=["g", "v"])
    frame = pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=columns, index=index)
    html = table(Sheet("t", frame))
    assert [html.count(text) for text in ('colspan="2">LP<', 'rowspan="2">A<', ">A1<")] == [1, 1, 1]
    assert Page(html).tags.count("td") == 12


def test_cells_show_two_decimals_and_missing_results_in_italics():
    frame = pd.DataFrame({"v": ["A1", "not run"], "d": [-1.5, np.nan], "n": [3, 1000]})
    words = [word for word in Page(table(Sheet("t", frame))).words if word.strip()]
    assert words == ["t", "v", "d", "n", "A1", "−1.50", "3", "not run", "–", "1000"]
    assert "<i>not run</i>" in table(Sheet("t", frame))


def test_an_index_without_meaning_is_left_out_and_an_empty_table_keeps_its_header():
    html = table(Sheet("t", pd.DataFrame(columns=["a", "b"], index=pd.RangeIndex(0))))
    assert Page(html).tags.count("th") == 2 and "td" not in Page(html).tags


def test_backticks_in_a_note_mark_code_and_angle_brackets_are_text():
    sheet = Sheet("t", pd.DataFrame({"a": [1]}), ["`make x` & <b>, `y"])
    page = build(ReportContent("t", sections=[Section("s", tables=[sheet])]))
    assert "<li><code>make x</code> &amp; &lt;b&gt;, `y</li>" in page

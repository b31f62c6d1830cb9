"""Thirty hostile texts in a real browser: annotator, gallery and report keep their layout."""

# ruff: noqa: F401, F811 - fixtures of browser_fixtures

import nbformat
import pyarrow.parquet as pq
import pytest
from browser_fixtures import driver, lab, page, until
from hostile import HOSTILE
from report_fixtures import content

from napo import stages
from napo.config.variants import BIASED, RESPONSES
from napo.data.rows import shards, write_shard
from napo.lab.html import escaped
from napo.noise.samples import sampled_rows
from napo.results.report import Section, Sheet, build
from napo.stages.session import open_session
from napo.workspace.manifests import finish

pytestmark = pytest.mark.browser

TEXTS = [text.encode(errors="replace").decode() for text in HOSTILE]  # as Parquet can hold them
ROWS = """
from napo import lab
from napo.stages.session import open_session
session = open_session("smoke", {root!r})
lab.rows(session)
"""
ANNOTATOR = """
from napo import lab
from napo.stages.session import open_session
session = open_session("smoke", {root!r})
lab.label(session, "ada")
"""
# Of an element: how far it, or anything in it that does not scroll by itself, is too wide.
TOO_WIDE = """
const root = arguments[0], edge = root.getBoundingClientRect().right + 1;
const inside = [...root.querySelectorAll('*')].filter((part) => part.getClientRects().length
  && !part.closest('.napo-words > *'));
return inside.filter((part) => part.getBoundingClientRect().right > edge
  || (part.matches('.napo-words') && part.scrollWidth > part.clientWidth + 1))
  .map((part) => part.outerHTML.slice(0, 200));"""

OUTSIDE = """
const edge = document.documentElement.clientWidth;
return [...document.body.querySelectorAll('*')].filter((part) => !part.closest('.scroll > *')
  && part.getBoundingClientRect().right > edge).map((part) => part.outerHTML.slice(0, 200));"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The smoke profile's rows, every text of them a hostile one."""
    root = tmp_path_factory.mktemp("hostile")
    made = open_session("smoke", str(root))
    stages.make_rows(made)
    folder = stages.build_rows(made)
    at = 0
    for path in shards(folder):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            for step, name in enumerate(("question", *RESPONSES)):
                row[name] = TEXTS[(at + step) % len(TEXTS)]
            at += 1
        write_shard(path, rows)
    finish(folder)
    for name, source in (("rows", ROWS), ("annotator", ANNOTATOR)):
        cell = nbformat.v4.new_code_cell(source.format(root=str(root)).strip())
        book = nbformat.v4.new_notebook(cells=[*([nbformat.v4.new_markdown_cell(" ")] * 5), cell])
        book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(book, root / f"{name}.ipynb")
    return root


def shown(text):
    """What is to be read on the screen: white space apart, control characters visible."""
    import html

    return "".join(html.unescape(escaped(text)).split())


def read(page, root):
    """The texts that stand in an element's boxes, and the tags of what else is in them."""
    boxes = page.js(
        "return [...arguments[0].querySelectorAll('.napo-words')]"
        ".filter((box) => box.getClientRects().length).map((box) => box.textContent)",
        root,
    )
    strangers = page.js(
        "return [...arguments[0].querySelectorAll('.napo-words *')]"
        ".map((part) => part.tagName).filter((name) => name !== 'MARK')",
        root,
    )
    assert strangers == []
    return ["".join(text.split()) for text in boxes]


def test_every_hostile_text_is_a_text_in_the_annotator_and_moves_nothing(page, workspace):
    made = open_session("smoke", str(workspace))
    rows, samples = stages.samples(made)
    by_id = sampled_rows(rows, samples)
    page.open("annotator.ipynb")
    page.run_all()
    root, buttons, seen = page.annotator(), set(), set()
    for number, (id, kind) in enumerate((id, kind) for id in samples for kind in BIASED):
        until(lambda number=number: f"item {number + 1} of" in page.text(), 20, "the item")
        row = by_id[id]
        wanted = [shown(row[name]) or "(empty)" for name in ("question", "chosen", kind)]
        assert read(page, root) == wanted
        assert page.js(TOO_WIDE, root) == []
        seen |= {row["question"], row["chosen"], row[kind]}
        first = page.js("return arguments[0].querySelector('button').getBoundingClientRect().y "
                        "- arguments[0].getBoundingClientRect().y", root)  # fmt: skip
        buttons.add(round(first))
        if row[kind] in (TEXTS[16], TEXTS[18]):
            page.picture(f"hostile-annotator-{number}")
        page.press("n")
    assert len(buttons) == 1  # they stay under the pointer however long a text is
    assert seen == set(TEXTS)


def test_every_hostile_text_is_a_text_in_the_gallery_and_moves_nothing(page, workspace):
    page.open("rows.ipynb")
    page.run_all()
    found = "return document.querySelector('.napo-explorer .napo-cards')?.closest('.napo-explorer')"
    root = until(lambda: page.js(found), 60, "the gallery")
    read_so_far = set()
    for number in range(16):  # pages of four rows
        place = f"rows {4 * number + 1} to {4 * number + 4} of 64"
        until(lambda place=place: place in root.text, 20, place)
        read_so_far |= set(read(page, root))
        assert page.js(TOO_WIDE, root) == []
        if number in (4, 5):
            page.picture(f"hostile-rows-{number}", of=root)
        page.js("arguments[0].querySelectorAll('button')[1].click()", root)
    assert read_so_far >= {shown(text) or "(empty)" for text in TEXTS}


@pytest.mark.parametrize("width", [1024, 390])
def test_a_report_full_of_hostile_texts_fits_its_window_and_runs_nothing(page, tmp_path, width):
    table = content().sections[1].tables[0]
    frame = table.frame.iloc[[0] * len(TEXTS)].assign(variant=TEXTS)
    sections = [Section(text, [text], []) for text in HOSTILE]
    sections.append(Section("Tables", [], [], [Sheet("Table 4", frame, HOSTILE)]))
    path = tmp_path / "report.html"
    path.write_text(build(content(title=HOSTILE[2], summary=HOSTILE, sections=sections)))
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.driver.get(path.as_uri())
    page.picture(f"hostile-report-{width}", of=page.js("return document.body"))
    wide = "const all = document.documentElement; return all.scrollWidth - all.clientWidth"
    assert page.js(wide) <= 0, page.js(OUTSIDE)
    assert page.js("return document.scripts.length + document.images.length") == 0
    assert page.js("return document.body.innerText.includes('<script>alert(1)</script>')")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

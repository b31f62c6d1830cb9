"""Thirty hostile texts in a real browser: annotator and report keep their layout."""

# ruff: noqa: F401, F811 - fixtures of browser_fixtures

import html

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
ANNOTATOR = """
from napo import lab
from napo.stages.session import open_session
session = open_session("smoke", {root!r})
lab.label(session, "ada")
"""
# Parts of an element that are too wide, except those that scroll by themselves.
TOO_WIDE = """
const root = arguments[0], edge = root.getBoundingClientRect().right + 1;
const inside = [...root.querySelectorAll('*')].filter((part) => part.getClientRects().length
  && !part.closest('.napo-words > *'));
return inside.filter((part) => part.getBoundingClientRect().right > edge
  || (part.matches('.napo-words') && part.scrollWidth > part.clientWidth + 1))
  .map((part) => part.outerHTML.slice(0, 200));"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The smoke profile's rows, every text of them a hostile one."""
    root = tmp_path_factory.mktemp("hostile")
    session = open_session("smoke", str(root))
    stages.make_rows(session)
    folder = stages.build_rows(session)
    count = 0
    for path in shards(folder):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            for step, name in enumerate(("question", *RESPONSES)):
                row[name] = TEXTS[(count + step) % len(TEXTS)]
            count += 1
        write_shard(path, rows)
    finish(folder)
    cell = nbformat.v4.new_code_cell(ANNOTATOR.format(root=str(root)).strip())
    book = nbformat.v4.new_notebook(cells=[*([nbformat.v4.new_markdown_cell(" ")] * 5), cell])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(book, root / "annotator.ipynb")
    return root


def shown(text):
    """The text on the screen: white space left out, control characters visible."""
    return "".join(html.unescape(escaped(text)).split()) or "(empty)"


def test_every_hostile_text_is_a_text_in_the_annotator_and_moves_nothing(page, workspace):
    rows, samples = stages.samples(open_session("smoke", str(workspace)))
    by_id = sampled_rows(rows, samples)
    page.open("annotator.ipynb")
    page.run_all()
    root, buttons, seen = page.annotator(), set(), set()
    words = "const words = [...arguments[0].querySelectorAll('.napo-words')]; return words"
    for number, (id, kind) in enumerate((id, kind) for id in samples for kind in BIASED):
        until(lambda number=number: f"item {number + 1} of" in page.text(), 20, "the item")
        texts = [by_id[id][name] for name in ("question", "chosen", kind)]
        boxes = page.js(
            f"{words}.filter((box) => box.getClientRects().length).map((box) => box.textContent)",
            root,
        )
        assert ["".join(text.split()) for text in boxes] == list(map(shown, texts))
        assert (
            page.js(f"{words}.flatMap((box) => [...box.querySelectorAll(':not(mark)')])", root)
            == []
        )
        assert page.js(TOO_WIDE, root) == []
        seen |= set(texts)
        first = page.js("return arguments[0].querySelector('button').getBoundingClientRect().y "
                        "- arguments[0].getBoundingClientRect().y", root)  # fmt: skip
        buttons.add(round(first))
        page.press("n")
    assert len(buttons) == 1  # they stay under the pointer however long a text is
    assert seen == set(TEXTS)


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
    wide = "const all = document.documentElement; return all.scrollWidth - all.clientWidth"
    assert page.js(wide) <= 0
    assert page.js("return document.scripts.length + document.images.length") == 0
    assert page.js("return document.body.innerText.includes('<script>alert(1)</script>')")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

import json
import re
import time

import pytest
from lab_fixtures import EXPLORERS, Tags

from napo import lab
from napo.errors import NapoError
from napo.lab import live
from napo.lab.margins import Bars
from napo.stages.session import open_session


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_static_picture_is_there_with_its_words_and_comes_within_three_seconds(name, smoke):
    EXPLORERS[name](smoke)  # imports and caches of the process
    start = time.perf_counter()
    made = EXPLORERS[name](smoke)
    assert time.perf_counter() - start < 3
    pictures = Tags(made.static).of("img")
    assert pictures and all(tag["alt"].strip() for tag in pictures)
    assert all(tag["src"].startswith("data:image/") for tag in pictures)
    assert 'class="napo-static"' in made.static


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_cell_shows_the_static_picture_first_and_then_the_widgets(name, smoke, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    made = EXPLORERS[name](smoke)
    made._ipython_display_()
    static, view = shown
    assert static["text/html"] == made.static and "text/html" not in view
    assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    assert static["text/plain"] == view["text/plain"] == repr(made)


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_widgets_are_empty_and_hidden_until_a_front_end_asks(name, smoke, monkeypatch):
    made = EXPLORERS[name](smoke)
    said = []
    monkeypatch.setattr(made.alive, "send", said.append)
    assert made.layout.display == "none" and not made.view.value
    assert made.alive.mark in made.static
    made.alive._handle_custom_msg({"ask": "alive"}, [])
    assert made.layout.display is None and said == [{"alive": True}]
    filled = made.children[-1] is made.alive and (made.view.value or made.heading.value)
    assert filled


@pytest.mark.parametrize("name", EXPLORERS)
def test_nothing_leaves_the_page_and_nothing_is_written(name, smoke):
    files = {path: path.stat().st_mtime_ns for path in smoke.workspace.root.rglob("*")}
    made = EXPLORERS[name](smoke)
    made.wake()
    for page in (made.static, made.view.value, live.Alive._esm, Bars._esm):
        left = re.sub(r"base64,[\w+/=]+", "", str(page))  # a picture's bytes may spell anything
        left = left.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "http" not in left and "import " not in left
    assert {path: path.stat().st_mtime_ns for path in smoke.workspace.root.rglob("*")} == files


def test_waking_again_fills_nothing_again(smoke, monkeypatch):
    made = lab.rows(smoke)
    made.wake()
    monkeypatch.setattr(made, "fill", lambda: pytest.fail("filled twice"))
    made.wake()


def test_a_saved_notebook_holds_the_static_picture_and_html_without_a_kernel_shows_it():
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    source = (
        "from PIL import Image\n"
        "from napo.lab.rows import Rows\n"
        "row = dict.fromkeys(('chosen', 'rejected', 'language_biased', 'vision_biased'), 'yes')\n"
        "Rows([{**row, 'id': 'r1', 'image': Image.new('RGB', (9, 9)), 'question': 'why ?'}])"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(book, timeout=120).execute()
    pages = [out["data"].get("text/html", "") for out in book.cells[0].outputs if "data" in out]
    assert any('class="napo-static"' in page and "<img" in page for page in pages)
    # No front end asked: the pictures are in the notebook once, not in the widgets' state too.
    assert "data:image" not in json.dumps(book.metadata.get("widgets", {}))
    page, _ = HTMLExporter().from_notebook_node(book)
    assert 'class="napo-static"' in page and 'alt="The picture of row r1"' in page


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("rows", r"rows is missing or unfinished; run notebooks/01_build_biased_data"),
        ("training", r"runs holds no finished run; run notebooks/05_train.ipynb first"),
        ("masks", r"source holds no .parquet or .jsonl file"),
        ("answers", r"results holds no results; run notebooks/06_evaluate.ipynb first"),
    ],
)
def test_a_missing_input_is_one_sentence_that_names_the_notebook(tmp_path, name, sentence):
    empty = open_session("smoke", str(tmp_path))
    with pytest.raises(NapoError, match=sentence):
        EXPLORERS[name](empty)

import json
import re

import pytest
from lab_fixtures import EXPLORERS, Tags

from napo.lab import live
from napo.lab.margins import Bars


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_cell_shows_a_picture_and_the_widgets_once_a_front_end_asks(name, smoke, monkeypatch):
    shown, said = [], []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    made = EXPLORERS[name](smoke)
    monkeypatch.setattr(made.alive, "send", said.append)
    made._ipython_display_()
    static, view = shown
    assert f'class="napo-static" data-napo="{made.alive.mark}"' in static["text/html"]
    pictures = Tags(static["text/html"]).of("img")
    assert pictures and all(tag["alt"].strip() for tag in pictures)
    assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    assert static["text/plain"] == view["text/plain"] == repr(made)
    assert made.layout.display == "none" and not made.view.value
    made.alive._handle_custom_msg({"ask": "alive"}, [])
    assert made.layout.display is None and said == [{"alive": True}]
    assert made.view.value


@pytest.mark.parametrize("name", EXPLORERS)
def test_nothing_leaves_the_page_and_nothing_is_written(name, smoke, monkeypatch):
    # The memory of hashes is written once a file is older than two seconds, whatever reads it.
    monkeypatch.setattr("napo.workspace.hashing._store", None)
    files = {path: path.stat().st_mtime_ns for path in smoke.workspace.root.rglob("*")}
    made = EXPLORERS[name](smoke)
    made.wake()
    for page in (made.static, made.view.value, live.Alive._esm, Bars._esm):
        left = re.sub(r"base64,[\w+/=]+", "", str(page))  # a picture's bytes may spell anything
        assert "http" not in left and "import " not in left
    assert {path: path.stat().st_mtime_ns for path in smoke.workspace.root.rglob("*")} == files


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
    # No front end asked: the pictures are in the notebook once, not in the widgets' state too.
    assert "data:image" not in json.dumps(book.metadata.get("widgets", {}))
    page, _ = HTMLExporter().from_notebook_node(book)
    assert 'class="napo-static"' in page and 'alt="The picture of row r1"' in page

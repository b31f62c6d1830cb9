"""Notebook 02 in a browser: JupyterLab on loopback, Debian's Chromium, real keys and clicks.

make test-browser      (installs nothing but what .venv needs; wants chromium and chromedriver)
"""

# ruff: noqa: F401, F811 - fixtures of browser_fixtures

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from browser_fixtures import driver, lab, page, until

from napo import stages
from napo.noise.labels import read_labels, write_labels
from napo.stages.session import open_session

pytestmark = pytest.mark.browser

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "02_annotate_noise.ipynb"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Rows of the smoke profile, and notebook 02 set to label them."""
    root = tmp_path_factory.mktemp("lab")
    made = open_session("smoke", str(root))
    stages.make_rows(made)
    stages.build_rows(made)
    book = json.loads(NOTEBOOK.read_text())
    cell = next(c for c in book["cells"] if "parameters" in c["metadata"].get("tags", []))
    cell["source"] = [
        'profile: str = "smoke"\n',
        f"workspace: str = {str(root)!r}\n",
        'annotator: str = "ada"\n',
        "interactive: bool = True\n",
    ]
    (root / "02.ipynb").write_text(json.dumps(book))
    (root / "02-second.ipynb").write_text(json.dumps(book))
    cell["source"][2] = 'annotator: str = "adjudicated"\n'
    (root / "02-adjudicate.ipynb").write_text(json.dumps(book))
    return root


def labels(workspace):
    path = workspace / "data" / "smoke" / "annotations" / "ada.csv"
    return read_labels(path)["label"].tolist() if path.is_file() else []


def kill_kernels(workspace):
    """SIGKILL to every kernel of this server, as a machine that runs out of memory would."""
    ours = subprocess.run(["pgrep", "-f", "ipykernel_launcher"], capture_output=True, text=True)
    killed = 0
    for number in ours.stdout.split():
        command = Path(f"/proc/{number}/cmdline").read_bytes().decode()
        if str(workspace / "runtime") in command:
            os.kill(int(number), signal.SIGKILL)
            killed += 1
    assert killed


def test_labels_by_keys_and_mouse_survive_a_killed_kernel(page, workspace):
    page.open("02.ipynb")
    page.run_all()
    page.annotator()
    page.keys("1", "2", "3", "1", "2")
    assert labels(workspace) == ["biased", "unbiased", "unsure", "biased", "unbiased"]
    page.click("Biased (noise-free)")
    page.click("Unbiased (noise)")
    assert labels(workspace)[5:] == ["biased", "unbiased"]
    page.keys("u")
    assert labels(workspace)[5:] == ["biased"]
    wide = """
      const root = arguments[0].closest('.jp-Cell-outputWrapper');
      return [root, ...root.querySelectorAll('*')].filter(
        (part) => getComputedStyle(part).overflowX !== 'hidden'
          && part.clientWidth > 1 && part.scrollWidth > part.clientWidth + 1
      ).map((part) => part.className);"""
    assert page.js(wide, page.annotator()) == []  # nothing to scroll sideways
    kill_kernels(workspace)
    time.sleep(1)
    page.open("02.ipynb")
    page.run_all()
    assert "labelled 6 " in until(lambda: page.text(), 60, "the annotator again")
    assert "item 7 of 60" in page.text()
    page.keys("3")
    assert labels(workspace) == [
        *("biased", "unbiased", "unsure", "biased", "unbiased", "biased", "unsure")
    ]
    frame = read_labels(workspace / "data" / "smoke" / "annotations" / "ada.csv")
    assert not frame.duplicated(["id", "kind"]).any() and set(frame["annotator"]) == {"ada"}


def test_two_tabs_lose_nothing_and_a_closed_one_keeps_what_it_labelled(page, workspace):
    driver, before = page.driver, labels(workspace)
    for name in ("02.ipynb", "02-second.ipynb"):  # each has a kernel of its own
        if name != "02.ipynb":
            driver.switch_to.new_window("tab")
        page.open(name)
        page.run_all()
        assert f"item {len(before) + 1} of 60" in page.text()
    first, second = driver.window_handles
    page.keys("1")
    driver.switch_to.window(first)
    page.keys("2")  # the same item, which stands here without its label still
    assert "Another tab has labelled this item biased, which is kept" in page.text()
    assert labels(workspace) == [*before, "biased"]
    page.keys("f", "3")
    driver.switch_to.window(second)
    page.press("2")  # meets the other's label of its item in turn
    driver.close()
    driver.switch_to.window(first)
    time.sleep(1)
    assert labels(workspace) == [*before, "biased", "unsure"]
    frame = read_labels(workspace / "data" / "smoke" / "annotations" / "ada.csv")
    assert not frame.duplicated(["id", "kind"]).any()


def test_a_double_click_labels_one_item_and_the_label_is_heard(page, workspace):
    page.open("02.ipynb")
    page.run_all()
    page.annotator()
    before = labels(workspace)
    page.click("Biased (noise-free)", twice=True)
    time.sleep(0.5)
    assert labels(workspace) == [*before, "biased"]
    heard = page.js("return arguments[0].querySelector('[role=status]')", page.annotator())
    assert heard.get_attribute("textContent").startswith("Saved: biased. Item ")
    page.click("Next")
    assert page.js("return arguments[0].isConnected", heard)  # it stays, only its text changes
    page.click("Previous")
    page.click("Unsure")
    assert labels(workspace) == [*before, "biased", "unsure"]


def test_labs_own_shortcuts_rest_while_the_annotator_has_the_focus(page, workspace):
    page.open("02.ipynb")
    page.run_all()
    cells = page.js("return document.querySelectorAll('.jp-Cell').length")
    before = labels(workspace)
    page.keys("n", "p")  # outside, n and p are nothing; a, b, d d and m change cells
    from selenium.webdriver.common.action_chains import ActionChains

    for key in "abdmxy":
        ActionChains(page.driver).send_keys(key).perform()
    time.sleep(0.5)
    assert page.js("return document.querySelectorAll('.jp-Cell').length") == cells
    assert labels(workspace) == before


def test_a_note_is_written_without_labelling(page, workspace):
    page.open("02.ipynb")
    page.run_all()
    page.annotator()
    before = labels(workspace)
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.js("arguments[0].focus()", page.annotator())
    ActionChains(page.driver).send_keys("e").perform()
    until(
        lambda: page.js("return document.activeElement.matches('input[type=text]')"), 10, "the note"
    )
    ActionChains(page.driver).send_keys("123 unsure", Keys.ENTER).perform()
    time.sleep(0.5)
    assert labels(workspace) == before
    page.keys("1")
    notes = read_labels(workspace / "data" / "smoke" / "annotations" / "ada.csv")["note"]
    assert notes.tolist()[-1] == "123 unsure"


def test_the_annotator_fits_a_narrow_window_and_speaks(page):
    page.open("02.ipynb")
    page.run_all()
    root = page.annotator()
    assert page.js("return arguments[0].scrollWidth <= arguments[0].clientWidth + 1", root)
    assert page.js("return arguments[0].getAttribute('aria-label')", root)
    unnamed = page.js(
        "return [...arguments[0].querySelectorAll('button, img, input')].filter((part) => "
        "!(part.textContent.trim() || part.alt || part.title || part.placeholder || "
        "part.getAttribute('aria-label'))).length",
        root,
    )
    assert unnamed == 0
    page.js(
        "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    time.sleep(1.5)
    dark = page.js(
        "const style = getComputedStyle(document.querySelector('.napo-words'));"
        "return [style.color, style.backgroundColor]"
    )
    assert dark[0] != dark[1] and dark[1] != "rgb(255, 255, 255)"


def test_what_two_people_dispute_is_settled_by_a_key(page, workspace):
    folder = workspace / "data" / "smoke" / "annotations"
    adas = read_labels(folder / "ada.csv")
    bens = adas.assign(annotator="ben", note="")
    adas_word = adas.loc[0, "label"]
    bens.loc[0, "label"] = "unbiased" if adas_word == "biased" else "biased"
    write_labels(folder / "ben.csv", bens)
    page.open("02-adjudicate.ipynb")
    page.run_all()
    shown = page.text()
    assert "item 1 of 1" in shown and f"ada: {adas_word}; ben: {bens.loc[0, 'label']}" in shown
    page.keys("2")
    assert "all labelled" in page.text()
    settled = read_labels(folder / "adjudicated.csv").set_index(["id", "kind"])
    assert list(settled["label"]) == ["unbiased"]  # the decision alone
    assert list(settled.index) == [(adas.loc[0, "id"], adas.loc[0, "kind"])]

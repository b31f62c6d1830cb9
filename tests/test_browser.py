"""Notebook 02 in JupyterLab on loopback, and a report: Chromium, real keys and clicks.

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
from browser_fixtures import driver, lab, page, place_notebook, until
from hostile import HOSTILE
from report_fixtures import content

from napo import stages
from napo.noise.labels import read_labels
from napo.results.report import Section, Sheet, build
from napo.stages.session import open_session

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Rows of the smoke profile, and notebook 02 set to label them."""
    root = tmp_path_factory.mktemp("lab")
    made = open_session("smoke", str(root))
    stages.make_rows(made)
    stages.build_rows(made)
    place_notebook(
        "02_annotate_noise.ipynb", root / "02.ipynb",
        profile="smoke", workspace=str(root), annotator="ada", interactive=True,
    )  # fmt: skip
    return root


def labels(workspace):
    path = workspace / "data" / "smoke" / "annotations" / "ada.csv"
    return read_labels(path)["label"].tolist() if path.is_file() else []


def notes(workspace):
    return read_labels(workspace / "data" / "smoke" / "annotations" / "ada.csv")["note"].tolist()


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
    for key, label, note in (("1", "biased", "123 unsure"), ("3", "unsure", "")):
        ActionChains(page.driver).send_keys(key).perform()  # Enter has left the note
        until(lambda label=label: labels(workspace)[-1:] == [label], 10, label)
        assert notes(workspace)[-1] == note
        time.sleep(0.5)  # the next item comes to the screen
    ActionChains(page.driver).send_keys("e").send_keys("more", Keys.ESCAPE, "2").perform()
    until(lambda: labels(workspace)[-1:] == ["unbiased"], 10, "the label after Escape")
    assert notes(workspace)[-1] == "more"


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


@pytest.mark.parametrize("width", [1024, 390])
def test_a_report_full_of_hostile_texts_fits_its_window_and_runs_nothing(page, tmp_path, width):
    frame = content().sections[1].tables[0].frame
    texts = [text.encode(errors="replace").decode() for text in HOSTILE]
    frame = frame.iloc[[0] * len(texts)].assign(variant=texts)
    sections = [Section(text, [text], []) for text in HOSTILE]
    sections.append(Section("Tables", [], [], [Sheet("Table 4", frame, HOSTILE)]))
    path = tmp_path / "report.html"
    path.write_text(
        build(content(title=HOSTILE[2], summary=dict.fromkeys(HOSTILE, HOSTILE), sections=sections))
    )
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.driver.get(path.as_uri())
    wide = "const all = document.documentElement; return all.scrollWidth - all.clientWidth"
    assert page.js(wide) <= 0
    assert page.js("return document.scripts.length + document.images.length") == 0
    assert page.js("return document.body.innerText.includes('<script>alert(1)</script>')")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

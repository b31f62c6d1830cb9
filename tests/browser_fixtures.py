"""JupyterLab on loopback and Debian's Chromium, as a person uses them.

A test module that takes these fixtures defines `workspace`: the folder that JupyterLab opens.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

TOKEN = "loopback"


@pytest.fixture(scope="module")
def lab(workspace):
    """JupyterLab on a free port of loopback: its address."""
    runtime = workspace / "runtime"
    runtime.mkdir()
    quiet = workspace / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={TOKEN}"),
            f"--ServerApp.root_dir={workspace}",
            "--LabApp.expose_app_in_browser=True",
        ],
        env={
            **os.environ,
            "JUPYTER_RUNTIME_DIR": str(runtime),
            "JUPYTER_CONFIG_DIR": str(workspace / "config"),
            "JUPYTERLAB_SETTINGS_DIR": str(workspace / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(workspace / "workspaces"),
        },
        stdout=(workspace / "lab.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = until(lambda: _address(runtime), 60, "JupyterLab's address")
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:  # JupyterLab's, not ours: it waits for a kernel that is gone
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _address(runtime):
    for path in runtime.glob("jpserver-*.json"):
        try:
            url = json.loads(path.read_text())["url"]
            requests.get(f"{url}api/status", params={"token": TOKEN}, timeout=5).raise_for_status()
        except (ValueError, KeyError, requests.RequestException):
            continue
        return url
    return None


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium, headless, 1024 pixels wide."""
    selenium = pytest.importorskip("selenium.webdriver")
    browser, chauffeur = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and chauffeur):
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --window-size=1024,1000 "
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"
    ).split():
        options.add_argument(flag)
    made = selenium.Chrome(options=options, service=selenium.ChromeService(chauffeur))
    made.set_script_timeout(90)
    yield made
    made.quit()


def place_notebook(name, target, shown=(), **parameters):
    """Write a notebook of the kit with these parameters; `shown` keeps only cells of these ids."""
    book = json.loads((Path(__file__).parent.parent / "notebooks" / name).read_text())
    book["cells"] = [cell for cell in book["cells"] if not shown or cell.get("id") in shown]
    cell = next(c for c in book["cells"] if "parameters" in c["metadata"].get("tags", []))
    cell["source"] = [
        f"{key}: {type(value).__name__} = {value!r}\n" for key, value in parameters.items()
    ]
    target.write_text(json.dumps(book))


def until(look, seconds, what):
    """Call `look` until it returns a value."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {seconds} s.")
        time.sleep(0.1)


class Page:
    """The notebook as a person sees it."""

    def __init__(self, driver, lab):
        self.driver, self.lab = driver, lab

    def open(self, name):
        # JupyterLab needs the window's focus; a headless window may lack it.
        self.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        mine = name.removesuffix(".ipynb")  # JupyterLab's workspace: two windows do not share one
        self.driver.get(f"{self.lab}lab/workspaces/{mine}/tree/{name}?token={TOKEN}&reset")
        until(
            lambda: self.js("return !!(window.jupyterapp && document.querySelector('.jp-Cell'))"),
            60,
            "the notebook",
        )
        until(lambda: self.js("return document.querySelectorAll('.jp-Cell').length > 5"), 60, name)

    def run_all(self):
        """Run every cell, once the kernel is there to run them."""
        ready = """
          const shown = window.jupyterapp.shell.currentWidget?.sessionContext;
          return shown?.isReady && shown.session?.kernel?.status === 'idle';"""
        until(lambda: self.js(ready), 60, "the kernel")
        self.js("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def annotator(self):
        script = """
          const shown = [...document.querySelectorAll('.napo-annotator')];
          const last = shown[shown.length - 1];
          return last && last.getAttribute('role') === 'group' ? last : null;"""
        try:
            return until(lambda: self.js(script), 60, "the annotator")
        except AssertionError as late:
            shown = self.js("return document.querySelector('.jp-Notebook').innerText")
            raise AssertionError(f"{late} The notebook shows: {shown[-1500:]}") from None

    def text(self):
        return self.annotator().text

    def press(self, key):
        """A key, without waiting for what it does."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.js("arguments[0].focus()", self.annotator())
        ActionChains(self.driver).send_keys(key).perform()

    def keys(self, *pressed):
        for key in pressed:
            before = self.text()
            self.press(key)
            until(lambda before=before: self.text() != before, 20, f"an answer to the key {key}")

    def click(self, words, twice=False):
        from selenium.webdriver.common.action_chains import ActionChains

        before = self.text()
        script = """
          const all = [...arguments[0].querySelectorAll('button')];
          return all.find((button) => button.textContent.includes(arguments[1]));"""
        button, hand = self.js(script, self.annotator(), words), ActionChains(self.driver)
        (hand.double_click(button) if twice else hand.click(button)).perform()
        until(lambda: self.text() != before, 20, f"an answer to {words}")


@pytest.fixture
def page(driver, lab):
    return Page(driver, lab)

"""Notebook 07's "before and after" in JupyterLab: the filters, chosen as a person does.

make test-browser
"""

# ruff: noqa: F401, F811 - fixtures of browser_fixtures

import json
import re
from pathlib import Path

import pytest
from browser_fixtures import driver, lab, page, place_notebook, until

from napo import stages
from napo.stages.session import open_session

pytestmark = pytest.mark.browser

SHOWN = {"07-00", "07-01", "07-02", "runs-there", "07-12", "07-13", "07-14"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Results of base and A1, and the cells of notebook 07 that compare their answers."""
    root = tmp_path_factory.mktemp("answers")
    made = open_session("smoke", str(root))
    stages.make_rows(made)
    stages.build_rows(made)
    stages.score_reference(made)
    stages.make_benchmarks(made)
    stages.train(made, "A1", 0)
    for variant in ("base", "A1"):
        stages.evaluate(made, variant)
    place_notebook(
        "07_results.ipynb", root / "07.ipynb", shown=SHOWN,
        profile="smoke", workspace=str(root), seeds="", tune="",
    )  # fmt: skip
    return root


def explorer(page):
    """The explorer, once its widgets are on the screen."""
    script = """
      const made = document.querySelector('.napo-explorer');
      return made && made.offsetHeight > 0
        && made.querySelectorAll("select").length ? made : null;"""
    return until(lambda: page.js(script), 90, "the explorer")


def choose(page, text):
    """Choose an entry of a list by its words, and wait for the view that follows."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    before = explorer(page).text
    for part in explorer(page).find_elements(By.CSS_SELECTOR, "select:not([multiple])"):
        if text in [option.text for option in part.find_elements(By.TAG_NAME, "option")]:
            Select(part).select_by_visible_text(text)
            return until(lambda: explorer(page).text != before and explorer(page).text, 20, text)
    raise AssertionError(f"No list offers {text}: {before}")


def test_filters_show_what_a_run_has_fixed_and_broken(page):
    page.open("07.ipynb")
    page.run_all()
    counted = re.search(r"(\d+) answers of vlind fixed, (\d+) broken", explorer(page).text)
    fixed, broken = map(int, counted.groups())
    shown = choose(page, "fixed by A1/seed-0")
    assert f"of {fixed}" in shown and "right answer" in shown
    assert "base is wrong" in shown and "A1/seed-0 is right" in shown
    shown = choose(page, "broken by A1/seed-0")
    assert f"of {broken}" in shown
    assert "base is right" in shown and "A1/seed-0 is wrong" in shown

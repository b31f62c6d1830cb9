"""README and docs: their code runs, their links lead somewhere, their paths exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text() for page in PAGES}


def anchors(text):
    """The anchors that GitHub gives to headings."""
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_or_a_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert not anchor or anchor in set(anchors(target.read_text())), link


@pytest.mark.parametrize("page", TEXTS)
def test_every_path_that_a_page_names_exists(page):
    paths = re.findall(r"`((?:napo|tests|bench|docs|notebooks|data/paper)/[\w./-]*)`", TEXTS[page])
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_dotted_name_that_a_page_gives_can_be_imported(page):
    names = set(re.findall(r"`(napo(?:\.\w+)+)`", TEXTS[page]))
    code = (
        "import sys; from pkgutil import resolve_name\nfor name in sys.argv[1:]: resolve_name(name)"
    )
    subprocess.run([sys.executable, "-c", code, *sorted(names)], check=True, cwd=ROOT)


def test_the_readmes_lines_of_loss_run_with_torch_alone():
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.S)
    code += "import sys; assert 'transformers' not in sys.modules and loss.item() > 0"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_objective_of_the_engines_page_gives_a_loss_with_gradient():
    code, *_ = re.findall(r"```python\n(.*?)```", TEXTS["engine.md"], re.S)
    end = "assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())"
    subprocess.run([sys.executable, "-c", code + end], check=True, cwd=ROOT)


def test_the_map_names_every_module():
    words = set(re.findall(r"[\w/]+", TEXTS["map.md"]))
    modules = {path.stem for path in (ROOT / "napo").glob("*/*.py") if path.stem[0] != "_"}
    assert modules - words == set()

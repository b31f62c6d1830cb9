"""Tables in LaTeX: every text is printed as text, and the result compiles."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from hostile import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from napo.results.collect import Results
from napo.results.compact import Cell, Label
from napo.results.latex import page_wide, tex
from napo.results.tables import extra_table, tables

ATTACKS = [
    r"\input{/etc/passwd}",
    r"\write18{touch written}",
    r"\immediate\openout5=written\relax",
    r"\catcode`\%=12 % not a comment",
    "^^5cinput{/etc/passwd} ^^M",
    "100 % & more # of _ this ^ here ~ $x$ {y} }{",
    r"\end{tabular}\end{table*}\end{document}",
    "[9cm] an option of the row before",
    "one\n\ntwo paragraphs\r\nand \u2028 more",
    "\0 \x07 \x1b \x7f",
    "α ψΣ ψμ ε β′ ± − – ↑ ↓ † ‡ § ¶ × · ≤ ≥",
    "",
]
# The commands that `tex` writes; no other special character of TeX may be left.
WRITTEN = re.compile(
    r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\\textasciigrave\{\}"
    r"|\\[{}&%$#_]|\{[\[*]\}|\$(?:[<>|\-']|\\[a-z]+|\^\\[a-z]+|_\\Sigma|_\\mu)\$"
)
LATEX = shutil.which("pdflatex")


def unescaped(text):
    return set("\\{}$&#^_%~") & set(WRITTEN.sub("", text))


def table(text):
    """A text in every place of a table: caption, header, heading, row, cell, note."""
    text = text.encode("utf-8", "replace").decode()  # pandas holds no half of a surrogate pair
    labels = [Label(text, "A1", text), Label(text, heading=True), Label("plain", text)]
    columns = pd.MultiIndex.from_product([(text or "x", "LP"), ("ours", "paper")])
    row = [Cell(text), Cell("1.2", text, "3.4 †", best=True), Cell(published=text), Cell()]
    cells = [row, [Cell()] * 4, row]
    frame = pd.DataFrame(cells, index=pd.Index(labels, dtype=object), columns=columns)
    return page_wide(frame, text, "tab:x", [text or "x", "a note"])


def compiled(folder, body, *options):
    """Run pdflatex on a document with these tables."""
    packages = r"\usepackage{booktabs,graphicx,xcolor}"
    document = (
        rf"\documentclass[twocolumn]{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    )
    (folder / "a.tex").write_text(document)
    call = [LATEX, "-interaction=nonstopmode", "-halt-on-error", *options, "a.tex"]
    done = subprocess.run(call, cwd=folder, capture_output=True, timeout=120)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output[-1500:]
    return output


def test_special_characters_are_printed_and_quotation_marks_curved():
    assert tex("50 % & a_b #1 {x} ~^ \\") == (
        r"50 \% \& a\_b \#1 \{x\} \textasciitilde{}\textasciicircum{} \textbackslash{}"
    )
    assert tex('"not run" γ ±') == r"``not run'' $\gamma$ $\pm$"


@given(st.text(st.characters()) | st.text(alphabet="\\{}$&#^_%~[]*\"'`-,?!^5c \n", max_size=30))
def test_no_special_character_of_tex_is_left_unescaped(text):
    printed = tex(text)
    assert not unescaped(printed)
    assert printed.isprintable() and not printed.startswith(("[", "*"))
    printed.encode()  # can be written to the disk


@pytest.mark.parametrize("text", ATTACKS)
def test_a_table_of_attacks_has_the_cells_of_a_harmless_one(text):
    rows = [line for line in table(text).splitlines() if line.endswith(r"\\")]
    cells = [len(re.findall(r"(?<!\\)&", row)) for row in rows]
    assert cells == [2, 4, 4, 0, 4]  # two rows of the header; a heading spans all columns


def test_a_value_has_its_interval_beneath_and_the_published_number_in_grey():
    cells = [[Cell("1.2", "[1.0, 1.4]", "3.4", best=True), Cell(published="5.6", best=True)]]
    columns = pd.MultiIndex.from_tuples([("VLind", "CB"), ("VLind", "LP")])
    index = pd.Index([Label("Full method", "A1")], dtype=object)
    text = page_wide(pd.DataFrame(cells, index=index, columns=columns), "Title", "x", [])
    assert r"\napocell{\textbf{1.2} \textcolor{gray}{(3.4)}}{{[}1.0, 1.4]}" in text
    assert r"& \textcolor{gray}{\textbf{5.6}} \\" in text
    assert r"Full method $\cdot$ \texttt{A1} &" in text


@pytest.mark.skipif(not LATEX, reason="pdflatex is not installed")
def test_pdflatex_prints_every_attack_as_text_and_runs_none(tmp_path):
    texts = [text for text in [*ATTACKS, *HOSTILE] if text.isascii() and len(text) < 400]
    body = "\n\\clearpage\n".join(map(table, [*texts, ATTACKS[-2]]))
    output = compiled(tmp_path, body, "-shell-escape")
    assert not (tmp_path / "written").exists() and "(/etc/passwd" not in output
    if shutil.which("pdftotext"):
        call = ["pdftotext", "a.pdf", "-"]
        words = subprocess.run(call, cwd=tmp_path, capture_output=True).stdout.decode()
        printed = (r"\input{/etc/passwd}", r"\write18{touch written}", "^^5cinput{", "100 % &")
        assert [text for text in printed if text not in words] == [] and "root:" not in words


@pytest.mark.skipif(not LATEX, reason="pdflatex is not installed")
def test_pdflatex_compiles_all_tables(tmp_path):
    nothing = Results(tmp_path, {})
    every = [*tables(nothing).values(), extra_table(nothing)]
    output = compiled(tmp_path, "\n".join(table.latex() for table in every))
    assert "Overfull" not in output and (tmp_path / "a.pdf").stat().st_size > 10_000

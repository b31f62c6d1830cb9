"""What reaches LaTeX is typeset as text, whoever wrote it."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from hostile import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from napo.results.tex import float_of, tex

ATTACKS = [
    r"\input{/etc/passwd}",
    r"\write18{touch written}",
    r"\immediate\openout5=written\relax",
    r"\catcode`\%=12 % not a comment",
    "^^5cinput{/etc/passwd} ^^M",
    "100 % & more # of _ this ^ here ~ $x$ {y} }{",
    r"\end{tabular}\end{table*}\end{document}",
    "[9cm] an option of the row before",
    "* a star",
    "  [x] after blanks",
    "one\n\ntwo paragraphs\r\nand \u2028 more",
    "?` !` -- --- '' `` ,, << >>",
    "\0 \x07 \x1b \x7f",
    '"quoted" and one " alone',
    "",
]
# What `tex` writes on purpose; everything else of TeX's active characters must be gone.
OURS = re.compile(
    r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\\textasciigrave\{\}"
    r"|\\[{}&%$#_]|\$(?:[<>|\-']|\\[a-z]+|\^\\[a-z]+|_\\Sigma|_\\mu)\$|\{\}"
)
ACTIVE = set("\\{}$&#^_%~")


def left_over(text):
    """TeX's own characters in a text, without what `tex` writes for them."""
    return ACTIVE & set(OURS.sub("", text))


@given(st.text(st.characters()))  # half a surrogate pair among them
def test_no_character_of_texs_own_is_left_unescaped(text):
    found = tex(text)
    assert not left_over(found)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in found)
    assert not found.startswith(("[", "*"))
    found.encode()  # what is written to the disk


@given(st.text(alphabet="\\{}$&#^_%~[]*\"'`-,?!^5c \n", max_size=30))
def test_nor_in_texts_made_of_them(text):
    assert not left_over(tex(text))


@pytest.mark.parametrize("bad", ["a % b", r"\input{x}", "a & b", "x^2", "a_b", "{", "$"])
def test_the_property_notices_what_is_not_escaped(bad):
    assert left_over(bad)


def table(text):
    """A text in every place of a table: title, header, group, name, cell, note."""
    text = text.encode("utf-8", "replace").decode()  # pandas holds no half of a pair
    index = pd.MultiIndex.from_tuples([(text, text), (text, "plain"), ("other", text)])
    columns = pd.MultiIndex.from_tuples(
        [(text, text), (text, "ours"), ("LP", text), ("LP", "ours")]
    )
    frame = pd.DataFrame(
        [[text, "1.2 ± 0.3", text, "+1.0 [0.5, 1.5]"]] * 3, index=index, columns=columns
    )
    return float_of(frame, text, "tab:x", [text, "a note", text])


@pytest.mark.parametrize("text", [*ATTACKS, *HOSTILE], ids=range(len(ATTACKS) + len(HOSTILE)))
def test_a_table_has_the_commands_of_a_harmless_one(text):
    commands = re.compile(r"\\(?:begin|end|input|write|immediate|openout|catcode|def|usepackage)\b")
    assert commands.findall(table(text)) == commands.findall(table("plain"))
    rows = [line for line in table(text).splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [
        2,
        4,
        *([0] if text else []),
        4,
        4,
        0,
        4,
    ]


LATEX = shutil.which("pdflatex")


@pytest.mark.skipif(not LATEX, reason="pdflatex is not installed")
def test_pdflatex_typesets_every_attack_as_text(tmp_path):
    texts = [text for text in [*ATTACKS, *HOSTILE] if text.isascii() and len(text) < 400]
    body = "\n\\clearpage\n".join(map(table, texts))
    document = rf"""\documentclass{{article}}
\usepackage[T1]{{fontenc}}
\usepackage{{booktabs,graphicx,amssymb}}
\begin{{document}}
{body}
\end{{document}}
"""
    (tmp_path / "a.tex").write_text(document)
    call = [LATEX, "-interaction=nonstopmode", "-halt-on-error", "-shell-escape", "a.tex"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout[-1500:].decode(errors="replace")
    assert not (tmp_path / "written").exists()
    assert b"/etc/passwd)" not in done.stdout and b"(/etc/passwd" not in done.stdout
    if shutil.which("pdftotext"):
        said = subprocess.run(["pdftotext", "a.pdf", "-"], cwd=tmp_path, capture_output=True)
        words = said.stdout.decode()
        for printed in (
            r"\input{/etc/passwd}",
            r"\write18{touch written}",
            "^^5cinput{",
            "100 % &",
        ):
            assert printed in words, printed
        assert "root:" not in words

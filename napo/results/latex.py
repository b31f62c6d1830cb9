"""Compact tables as LaTeX with booktabs, through pandas' Styler; every text is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from napo.results.compact import Cell, Label

# A value with its interval beneath, in small print.
CELL = (
    r"\providecommand{\napocell}[2]{\begin{tabular}[t]{@{}c@{}}#1\\[-2pt]"
    r"{\fontsize{5.5}{6}\selectfont #2}\end{tabular}}"
)
PRINTED = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}", "[": "{[}", "*": "{*}",  # both would be options of the row above
    "<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "“": "``", "”": "''", "’": "'", "′": "$'$",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$", "§": r"$^\mathsection$", "¶": r"$^\mathparagraph$",
    "±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\le$",
    "≥": r"$\ge$",
    "△": r"$\triangle$", "▽": r"$\bigtriangledown$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "α": r"$\alpha$", "β": r"$\beta$",
    "γ": r"$\gamma$", "ε": r"$\varepsilon$", "σ": r"$\sigma$", "ψ": r"$\psi$", "Σ": r"$_\Sigma$",
    "μ": r"$_\mu$",
})  # fmt: skip


def page_wide(frame: pd.DataFrame, title: str, label: str, notes: Sequence[str]) -> str:
    """A compact table as one `table*` float, never wider than the page; the notes follow it."""
    text = r"\\".join(filter(None, map(tex, notes)))
    lines = [
        r"% needs \usepackage{booktabs,graphicx,xcolor}",
        CELL,
        r"\begin{table*}[t]\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{tex(title)}}}",
        rf"\label{{{label}}}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        tabular(frame) + "}",
        rf"\par\medskip\parbox{{\textwidth}}{{\scriptsize\raggedright {text}}}" if text else "",
        r"\end{table*}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def tabular(frame: pd.DataFrame) -> str:
    """A `tabular` of a compact frame: intervals beneath the values, headings over all columns."""
    columns = frame.shape[1]
    style = frame.style.hide(names=True).format(_cell)
    style.format_index(partial(_label, columns=columns + 1)).format_index(tex, axis=1)
    text = style.to_latex(hrules=True, multicol_align="c", column_format="l" + "c" * columns)
    heading = r"^(\\multicolumn\{\d+\}\{l\}.*\}) [ &]*\\\\$"  # its empty cells are left out
    return re.sub(heading, r"\\midrule \1 \\\\", text, flags=re.MULTILINE).rstrip()


def _cell(cell: Cell) -> str:
    first, second = tex(cell.value), tex(cell.published)
    if first and second:
        second = f"({second})"
    if cell.best:
        first, second = (rf"\textbf{{{first}}}", second) if first else ("", rf"\textbf{{{second}}}")
    grey = rf"\textcolor{{gray}}{{{second}}}" if second else ""
    text = " ".join(filter(None, (first, grey)))
    return rf"\napocell{{{text}}}{{{tex(cell.interval)}}}" if cell.interval else text


def _label(row: Label, columns: int) -> str:
    if row.heading:
        return rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{tex(row.words)}}}}}"
    code = rf"$\cdot$ \texttt{{{tex(row.code)}}}" if row.code else ""
    return " ".join(filter(None, (tex(row.words), code, tex(row.mark))))


def tex(text: str) -> str:
    """Text as LaTeX prints it: straight quotation marks curved, unprintable characters left out."""
    text = "".join(c for c in text if c.isprintable() or c.isspace())
    return re.sub('"([^"]*)"', r"“\1”", " ".join(text.split())).translate(PRINTED)

"""Frames of texts as LaTeX tables with booktabs, through pandas' Styler; every text is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

METRICS = 4  # side by side in a float; a wider table continues in another float
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


def floats(frame: pd.DataFrame, title: str, label: str, notes: Sequence[str]) -> str:
    """A frame of texts as `table*` floats of at most four metrics each, all under one number.

    Columns are (metric, kind), the index row or (group, row); notes follow the last float.
    """
    names = list(frame.columns.unique(0))
    parts = [names[start : start + METRICS] for start in range(0, len(names), METRICS)]
    lines = [r"% needs \usepackage{booktabs,graphicx}"]
    for number, part in enumerate(parts, 1):
        lines.append(r"\begin{table*}[p]\centering\footnotesize\setlength{\tabcolsep}{3pt}")
        if number > 1:
            lines.append(r"\addtocounter{table}{-1}")
        count = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
        lines.append(rf"\caption{{{tex(title)}{count}}}")
        if number == 1:
            lines.append(rf"\label{{{label}}}")
        lines.append(r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%")
        lines.append(tabular(frame[part]) + "}")
        if number == len(parts) and notes:
            text = r"\\".join(filter(None, map(tex, notes)))
            lines.append(rf"\par\medskip\parbox{{\textwidth}}{{\scriptsize\raggedright {text}}}")
        lines.append(r"\end{table*}")
    return "\n".join(lines) + "\n"


def tabular(frame: pd.DataFrame) -> str:
    """A `tabular` of the frame; spreads and intervals are in small print."""
    metrics, levels = frame.columns.unique(0), frame.index.nlevels
    numbers = "r" * (frame.shape[1] // len(metrics))
    style = frame.style.hide(names=True).format_index(tex).format_index(tex, axis=1)
    small = re.compile(r" (\$\\pm\$.*|\{\[}.*)$")
    text = style.format(lambda cell: small.sub(r"\\,{\\scriptsize \1}", tex(cell))).to_latex(
        hrules=True,
        clines="skip-last;data" if levels > 1 else None,  # between groups of rows
        multirow_align="naive",
        multicol_align="c",
        column_format="l" * levels + r"@{\hspace{9pt}}".join([numbers] * len(metrics)),
    )
    rule = rf"\cline{{1-{levels + frame.shape[1]}}}"
    text = text.replace(f"{rule}\n\\bottomrule", r"\bottomrule").replace(rule, r"\midrule")
    return text.rstrip()


def tex(text: str) -> str:
    """Text as LaTeX prints it: straight quotation marks curved, unprintable characters left out."""
    text = "".join(c for c in text if c.isprintable() or c.isspace())
    return re.sub('"([^"]*)"', r"“\1”", " ".join(text.split())).translate(PRINTED)

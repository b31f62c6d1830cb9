"""Tables as LaTeX (booktabs): what is printed is what the frame holds, whatever it holds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

METRICS_A_FLOAT = 4  # side by side on a page; a table with more goes on in a further float

_PRINTED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''",
    "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": r"$-$", "–": "--",
    "·": r"$\cdot$",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$", "§": r"$^\mathsection$",
    "¶": r"$^\mathparagraph$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$",
    "β": r"$\beta$", "γ": r"$\gamma$", "ψ": r"$\psi$", "Σ": r"$_\Sigma$", "μ": r"$_\mu$",
    "α": r"$\alpha$", "ε": r"$\varepsilon$", "σ": r"$\sigma$", "′": "$'$",
    "`": r"\textasciigrave{}", "’": "'", "“": "``", "”": "''",
}  # fmt: skip
_UNSEEN = ("Cc", "Cf", "Co", "Cs", "Cn")  # Unicode's categories of what no printer prints
_JOINED = "-',"  # of which TeX makes a dash or a quotation mark where two stand together
_SPREAD = re.compile(r" (± [\d.]+)$| (\[[^]]+\])$")


def tex(text: str) -> str:
    """Text that LaTeX prints as it is, pairs of straight quotation marks as curved ones.

    Line breaks are spaces, as a paragraph's end would end a caption; characters that print nothing
    are left out. (pdflatex has no Chinese and no emoji; LuaLaTeX and XeLaTeX take a font's.)
    """
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in _UNSEEN)
    text = " ".join(text.split())
    text = re.sub('"([^"]*)"', r"“\1”", text)
    printed = "".join(
        "{}" * (c == before and c in _JOINED) + _PRINTED.get(c, c)
        for before, c in zip(" " + text, text, strict=False)
    )
    # After a row's end both would be its options.
    return "{}" + printed if printed.startswith(("[", "*")) else printed


def _cell(text: str) -> str:
    """A number with its spread or interval in small print."""
    found = _SPREAD.search(text)
    if not found:
        return tex(text)
    small = next(part for part in found.groups() if part)
    return rf"{tex(text[: found.start()])}\,{{\scriptsize {tex(small)}}}"


def float_of(frame: pd.DataFrame, title: str, label: str, notes: Sequence[str]) -> str:
    """A frame as `table*` floats of at most four metrics each, all under one number.

    Args:
        frame: texts; columns (metric, kind); rows, or (group, row).
        title: the caption.
        label: for `\\ref`.
        notes: printed under the last float.
    """
    metrics = list(dict.fromkeys(frame.columns.get_level_values(0)))
    parts = [metrics[at : at + METRICS_A_FLOAT] for at in range(0, len(metrics), METRICS_A_FLOAT)]
    lines = [r"% needs \usepackage{booktabs,graphicx,amssymb}"]
    for at, part in enumerate(parts):
        caption = tex(title)
        if len(parts) > 1:
            caption += f" ({at + 1} of {len(parts)})"
        last = at == len(parts) - 1
        lines += [
            r"\begin{table*}[p]\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            *([r"\addtocounter{table}{-1}"] if at else []),
            rf"\caption{{{caption}}}",
            *([] if at else [rf"\label{{{label}}}"]),
            *_tabular(frame[part]),
            *([_under(notes)] if last and notes else []),
            r"\end{table*}",
        ]
    return "\n".join(lines) + "\n"


def _tabular(frame: pd.DataFrame) -> Iterator[str]:
    metrics = list(dict.fromkeys(frame.columns.get_level_values(0)))
    width = len(frame.columns) // len(metrics)
    spans = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{tex(name)}}}" for name in metrics)
    columns = r"@{\hspace{9pt}}".join(["r" * width] * len(metrics))
    yield r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{l{columns}}}"
    yield r"\toprule"
    yield rf" & {spans} \\"
    yield "".join(
        rf"\cmidrule(lr){{{2 + at * width}-{1 + (at + 1) * width}}}" for at in range(len(metrics))
    )
    yield " & ".join(["", *(tex(kind) for _, kind in frame.columns)]) + r" \\"
    rows = [
        (key if isinstance(key, tuple) else ("", key), values)
        for key, values in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    for group, members in groupby(rows, key=lambda row: row[0][0]):
        yield r"\midrule"
        if group:
            yield rf"\multicolumn{{{len(frame.columns) + 1}}}{{l}}{{\emph{{{tex(group)}}}}} \\"
        for (_, name), values in members:
            yield " & ".join([tex(name), *map(_cell, values)]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}}"


def _under(notes: Sequence[str]) -> str:
    text = r"\\".join(filter(None, map(tex, notes)))
    return rf"\par\medskip\parbox{{\textwidth}}{{\scriptsize\raggedright {text}}}"

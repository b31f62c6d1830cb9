"""The compact edition of a table, which fits a laptop and a page: what ran here, and the paper.

A cell holds our value with its 95 % interval beneath. Where the published number is comparable, it
stands beside ours; where other data and another model made it, the published rows are a block of
their own. The full edition (`napo.results.tables`) has every row and all differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from markupsafe import escape

from napo.config.benchmarks import Metric
from napo.config.variants import VARIANTS
from napo.results.collect import Estimate, Results, interval
from napo.results.notes import marks

if TYPE_CHECKING:
    import pandas as pd

ABSENT = "–"
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Cell:
    """A cell: our value, its interval, the published number; whether it is best in its column."""

    value: str = ""
    interval: str = ""
    published: str = ""
    best: bool = False


@dataclass(frozen=True)
class Label:
    """The name of a row: words, the variant's code, marks; or a heading over all columns."""

    words: str
    code: str = ""
    mark: str = ""
    published: bool = False
    heading: bool = False


def label(variant: str, mark: str = "", *, published: bool = False) -> Label:
    """The name of a variant's row, such as "Full method · A1"."""
    return Label(in_words(variant), variant, mark, published)


def in_words(variant: str) -> str:
    """The short name of a variant, or of the base; of an unknown one its code."""
    if variant == "base":
        return "Base model"
    return VARIANTS[variant].words if variant in VARIANTS else variant


def compact(
    results: Results,
    variants: Iterable[str],
    columns: Sequence[Metric],
    published: Mapping[str, Mapping[str, str]] | None = None,
    *,
    heading: str = "",
    comparable: bool = False,
    symbols: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The compact edition of a table.

    Args:
        results: the runs.
        variants: the rows, in order; those that did not run are left out.
        columns: the metrics.
        published: variant -> metric -> the published number as text.
        heading: of the block of published rows.
        comparable: whether a published number stands beside ours. Then the block holds the
            published rows without a run here.
        symbols: variant -> the symbol of the note to its published row.

    Returns:
        Cells (`Cell`), index `Label`, columns (benchmark, metric with its arrow).
    """
    import pandas as pd

    published, symbols = published or {}, symbols or {}
    ran = [variant for variant in variants if variant in results.runs]
    rows: dict[Label, list[Cell]] = {}
    estimates = [[results.estimate(variant, metric) for metric in columns] for variant in ran]
    cells = [[measured(e, m) for e, m in zip(row, columns, strict=True)] for row in estimates]
    for variant, row in zip(ran, with_best(cells, columns), strict=True):
        mark = " ".join(marks(results, variant))
        if comparable and variant in published:
            mark = f"{mark} {symbols.get(variant, '')}".strip()
            beside = [published[variant][metric.name] for metric in columns]
            beside = ["" if text == ABSENT else text for text in beside]
            row = [replace(cell, published=text) for cell, text in zip(row, beside, strict=True)]
        rows[label(variant, mark)] = row
    apart = [name for name in published if not (comparable and name in ran)]
    if apart:
        rows[Label(heading, heading=True)] = [Cell()] * len(columns)
        texts = [[Cell(published=published[name][m.name]) for m in columns] for name in apart]
        if not comparable:  # else they are what is left of a block, and its best may be above
            texts = with_best(texts, columns)
        for name, row in zip(apart, texts, strict=True):
            rows[label(name, symbols.get(name, ""), published=True)] = row
    return pd.DataFrame(
        list(rows.values()),
        index=pd.Index(list(rows), dtype=object),
        columns=pd.MultiIndex.from_tuples([header(metric) for metric in columns]),
    )


def is_compact(frame: pd.DataFrame) -> bool:
    """Whether a frame is a compact edition."""
    return len(frame) > 0 and all(isinstance(row, Label) for row in frame.index)


def header(metric: Metric) -> tuple[str, str]:
    """A metric's column, such as ("VLind", "CB ↑")."""
    first, _, last = metric.name.partition(" ")
    arrow = {1: " ↑", -1: " ↓"}.get(metric.better, "")
    return first, f"{last}{arrow}".strip()


def measured(ours: Estimate | None, metric: Metric) -> Cell:
    """The cell of a value of ours."""
    if ours is None:
        return Cell(ABSENT)
    if math.isnan(ours.value):
        return Cell("undefined")
    form = f".{metric.digits}f"
    return Cell(f"{ours.value:{form}}", interval(ours.low, ours.high, form))


def with_best(rows: Sequence[Sequence[Cell]], columns: Sequence[Metric]) -> list[list[Cell]]:
    """The rows with the best cells of each column marked; equal texts are equally good."""
    marked = [list(row) for row in rows]
    for place, metric in enumerate(columns):
        numbers = [number(row[place]) for row in rows]
        known = [value for value in numbers if not math.isnan(value)]
        if len(known) < 2 or not metric.better:
            continue
        best = max(known, key=lambda value: value * metric.better)
        for row, value in zip(marked, numbers, strict=True):
            row[place] = replace(row[place], best=value == best)
    return marked


def number(cell: Cell) -> float:
    """The number of a cell; nan for a dash or a word. A note's symbol may follow a number."""
    match = re.match(r"-?\d+(\.\d+)?", cell.value or cell.published)
    return float(match[0]) if match else math.nan


# --- as HTML and as Markdown; as LaTeX: `napo.results.latex`


def html(frame: pd.DataFrame, title: str = "") -> str:
    """The table as HTML; texts are escaped. Headings span all columns."""
    style = frame.style.hide(names=True).hide(names=True, axis=1)
    style.format(_cell_html).format_index(_label_html)
    style.format_index(lambda text: escape(text.replace(" ", NO_BREAK)), axis=1)
    if title:
        style.set_caption(f"<b>{escape(title)}</b>")
    span = rf'<th colspan="{frame.shape[1] + 1}" scope="rowgroup">\1</th>'
    row = r'<th\s*>(<span class="block">[^<]*</span>)</th>(?:\s*<td\s*></td>)+'
    return re.sub(row, span, style.to_html(exclude_styles=True))


def _cell_html(cell: Cell) -> str:
    parts = [
        f"<b>{escape(cell.value)}</b>" if cell.best and cell.value else escape(cell.value),
        _published_html(cell),
    ]
    beneath = f"<br><small>{escape(cell.interval)}</small>" if cell.interval else ""
    return " ".join(part for part in parts if part) + beneath


def _published_html(cell: Cell) -> str:
    if not cell.published:
        return ""
    text = escape(f"({cell.published})" if cell.value else cell.published)
    strong = f"<b>{text}</b>" if cell.best and not cell.value else text
    return f'<span class="published">{strong}</span>'


def _label_html(row: Label) -> str:
    words = escape(row.words)
    if row.heading:
        return f'<span class="block">{words}</span>'
    code = f" ·{NO_BREAK}<code>{escape(row.code)}</code>" if row.code else ""
    return f"{words}{code} {escape(row.mark)}".strip()


def markdown(frame: pd.DataFrame) -> str:
    """The table as Markdown; intervals are on a line of their own within the cell."""
    names = [" ".join(part for part in column if part) for column in frame.columns]
    lines = ["| | " + " | ".join(names) + " |", "|---" + "|---:" * len(names) + "|"]
    for row, cells in zip(frame.index, frame.to_numpy(), strict=True):
        texts = [_label_markdown(row), *map(_cell_markdown, cells)]
        plain = [" ".join(text.replace("|", r"\|").split()) for text in texts]
        lines.append("| " + " | ".join(plain) + " |")
    return "\n".join(lines) + "\n"


def _cell_markdown(cell: Cell) -> str:
    first, second = cell.value, cell.published
    if first and second:
        second = f"({second})"
    parts = [part for part in (first, second) if part]
    if cell.best:
        parts[0] = f"**{parts[0]}**"
    return " ".join(parts) + (f"<br><sub>{cell.interval}</sub>" if cell.interval else "")


def _label_markdown(row: Label) -> str:
    if row.heading:
        return f"*{row.words}*"
    code = f" · `{row.code}`" if row.code else ""
    return f"{row.words}{code} {row.mark}".strip()

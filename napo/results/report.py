"""The report: one HTML file that holds everything, for a desk, a phone or paper, in light or dark.

It needs no network and runs no script; texts are escaped; the same content gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from napo.errors import NapoError

WIDE, WIDEST = 8, 24  # columns; in print a wider table's section is turned, the widest on A3
ABSENT = ("not run", "–")
_NUMBER = re.compile(r"[-+−±]?\d")


@dataclass(frozen=True)
class Table:
    """A table with the notes that stand under it."""

    title: str
    frame: pd.DataFrame
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A figure: matplotlib's, or the path of an svg or png file."""

    title: str
    figure: Figure | Path
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report: paragraphs, then pictures, then tables."""

    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class ReportContent:
    """All that the report says.

    Attributes:
        title: the heading.
        subtitle: a line under it, such as the profile's title.
        summary: paragraphs before the first section.
        sections: the parts, in order.
        settings: the profile's settings, nested as they are.
        versions: package -> version.
        code: what was run -> the commit that it was run with.
    """

    title: str
    subtitle: str = ""
    summary: Sequence[str] = ()
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Cell:
    text: str
    span: int = 1
    head: bool = False
    number: bool = False
    absent: bool = False


@dataclass(frozen=True)
class _Grid:
    """A frame ready for the template: rows of cells, header rows with spans."""

    header: list[list[_Cell]]
    body: list[list[_Cell]]
    rules: set[int]  # body rows with a rule above them, where the first index level changes
    wide: bool
    widest: bool


def build(report: ReportContent) -> str:
    """The report as one self-contained HTML document.

    Raises:
        NapoError: when a picture's file is missing or neither svg nor png.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("napo.results", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"grid": grid, "image": image, "slug": _slug, "note": _note}
    page = environment.get_template("report.html.j2").render(
        report=report, settings=dict(flatten(report.settings))
    )
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair has no bytes


def grid(frame: pd.DataFrame) -> _Grid:
    """Rows and header of a frame; an index that says something becomes the first columns."""
    levels = 0 if isinstance(frame.index, pd.RangeIndex) else frame.index.nlevels
    names = [str(name) if name is not None else "" for name in frame.index.names][:levels]
    values = [
        [*(key if isinstance(key, tuple) else (key,))[:levels], *row]
        for key, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True)
    ]
    texts = [[_text(value) for value in row] for row in values]
    numeric = [_numeric(column) for column in zip(*texts, strict=True)] or [False] * len(frame.T)
    numeric[:levels] = [False] * levels
    rules = {at for at in range(1, len(texts)) if levels > 1 and texts[at][0] != texts[at - 1][0]}
    body = []
    for at, row in enumerate(texts):
        cells = []
        for place, text in enumerate(row):
            repeats = levels > 1 and place == 0 and at > 0 and at not in rules
            cells.append(
                _Cell(
                    "" if repeats else text,
                    head=place < levels,
                    number=numeric[place],
                    absent=text in ABSENT,
                )
            )
        body.append(cells)
    header = _header(frame.columns, names, numeric[levels:])
    count = levels + len(frame.columns)
    return _Grid(header, body, rules, wide=count > WIDE, widest=count > WIDEST)


def _numeric(column: Sequence[str]) -> bool:
    """Whether a column is one of numbers, missing ones apart."""
    there = [text for text in column if text not in ABSENT]
    return bool(there) and all(_NUMBER.match(text) for text in there)


def _header(columns: pd.Index, names: Sequence[str], numeric: Sequence[bool]) -> list[list[_Cell]]:
    """Header rows; equal neighbours of an upper level are one cell."""
    keys = [key if isinstance(key, tuple) else (key,) for key in columns]
    rows = []
    for level in range(columns.nlevels - 1):
        row = [_Cell("") for _ in names]
        upper = [key[: level + 1] for key in keys]
        for _, run in groupby(upper):
            run = list(run)
            row.append(_Cell(str(run[0][-1]), len(run)))
        rows.append(row)
    last = [_Cell(str(key[-1]), number=right) for key, right in zip(keys, numeric, strict=True)]
    return [*rows, [*map(_Cell, names), *last]]


def _text(value: Any) -> str:
    """A cell's text: numbers to two decimals, a dash for what is missing."""
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}".replace("-", "−") if abs(value) < 1e6 else f"{value:.3g}"
    return str(value)


def image(figure: Figure | Path) -> str:
    """A picture as a data address, so that nothing in it can reach out of its frame.

    Raises:
        NapoError: when the file is missing or of another kind.
    """
    if isinstance(figure, Figure):
        kind, content = "svg+xml", _svg(figure)
    else:
        path = Path(figure)
        kinds = {".svg": "svg+xml", ".png": "png"}
        if path.suffix not in kinds:
            raise NapoError(f"{path} is no svg or png file; give the report one of these.")
        if not path.is_file():
            raise NapoError(f"{path} is missing; run the notebook that draws it first.")
        kind, content = kinds[path.suffix], path.read_bytes()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _svg(figure: Figure) -> bytes:
    from napo.results.figures.style import style

    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with their values as text."""
    found = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += flatten(value, f"{prefix}{name}.")
        else:
            listed = isinstance(value, list | tuple | set)
            text = ", ".join(map(str, value)) if listed else str(value)
            found.append((f"{prefix}{name}", text or "–"))
    return found


def _note(text: str) -> Markup:
    """A note as text, what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _slug(title: str) -> str:
    """A title as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "part"

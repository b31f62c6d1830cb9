"""The report: one HTML file with all tables and pictures, for screens, phones and paper.

It needs no network and runs no script. Texts are escaped; the same content gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from napo.results.compact import html as compact_html
from napo.results.compact import is_compact
from napo.results.figures.style import METADATA, style

if TYPE_CHECKING:
    from jinja2 import Environment

ABSENT = ("not run", "–")


@dataclass(frozen=True)
class Sheet:
    """A table with the notes under it. An index without meaning (`RangeIndex`) is left out.

    Attributes:
        title: its caption.
        frame: of texts and numbers, or a compact edition (`napo.results.compact`).
        notes: a list under it.
        full: its full edition, folded under the notes.
    """

    title: str
    frame: pd.DataFrame
    notes: Sequence[str] = ()
    full: Sheet | None = None

    @property
    def kind(self) -> str:
        """How it is laid out: "compact", "wide", or "" for few columns."""
        if is_compact(self.frame):
            return "compact"
        return "wide" if self.frame.shape[1] + self.frame.index.nlevels > 8 else ""


@dataclass(frozen=True)
class Picture:
    """A figure: matplotlib's, or the path of an svg file."""

    title: str
    figure: Figure | Path
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report: paragraphs, explained terms, pictures, tables, then folded lists."""

    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Sheet] = ()
    terms: Mapping[str, str] = field(default_factory=dict)
    folded: Mapping[str, Sequence[str]] = field(default_factory=dict)  # title -> points


@dataclass(frozen=True)
class ReportContent:
    """The content of the report."""

    title: str
    subtitle: str = ""
    summary: Mapping[str, Sequence[str]] = field(default_factory=dict)  # question -> answers
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # nested
    versions: Mapping[str, str] = field(default_factory=dict)  # of packages
    code: Mapping[str, str] = field(default_factory=dict)  # artefact -> the commit that made it


def build(report: ReportContent) -> str:
    """The report as one self-contained HTML document."""
    template = templates().get_template("report.html.j2")
    page = template.render(report=report, settings=flatten(report.settings))
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair has no bytes


def sheet_html(sheet: Sheet) -> str:
    """A table with its notes and its folded full edition, as part of a page."""
    return str(templates().get_template("sheet.html.j2").module.sheet(sheet))


def templates() -> Environment:
    """The templates of the report."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("napo.results", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"table": table, "image": image, "note": note}
    return environment


def table(sheet: Sheet) -> Markup:
    """The HTML table of a frame: equal neighbours in header and index are one cell."""
    if is_compact(sheet.frame):
        return Markup(compact_html(sheet.frame, sheet.title))
    frame = sheet.frame.style.hide(names=True).hide(names=True, axis=1)
    frame.format(_cell, na_rep="–", escape="html").set_caption(f"<b>{escape(sheet.title)}</b>")
    frame.format_index(escape="html").format_index(escape="html", axis=1)
    if isinstance(sheet.frame.index, pd.RangeIndex):
        frame.hide()
    return Markup(frame.to_html(exclude_styles=True))


def _cell(value: Any) -> Any:
    """A cell's text: numbers with two decimals, missing results in italics."""
    if isinstance(value, float):
        return f"{value:.2f}".replace("-", "−")
    return f"<i>{value}</i>" if value in ABSENT else value


def image(figure: Figure | Path) -> str:
    """A picture as a data address, so that a picture cannot load anything."""
    if isinstance(figure, Figure):
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format="svg", metadata=METADATA["svg"])
        content = buffer.getvalue()
    else:
        content = figure.read_bytes()
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"


def note(text: str) -> Markup:
    """A note as HTML; text between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names -> values as text."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            is_list = isinstance(value, list | tuple | set)
            text = ", ".join(map(str, value)) if is_list else str(value)
            flat[f"{prefix}{name}"] = text or "–"
    return flat

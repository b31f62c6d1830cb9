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
from typing import Any

import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from napo.errors import NapoError
from napo.results.figures.style import METADATA, style

ABSENT = ("not run", "–")


@dataclass(frozen=True)
class Sheet:
    """A table with the notes under it. An index without meaning (`RangeIndex`) is left out."""

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
    tables: Sequence[Sheet] = ()


@dataclass(frozen=True)
class ReportContent:
    """The content of the report.

    Attributes:
        title: the heading.
        subtitle: a line under it, such as the profile's title.
        summary: paragraphs before the first section.
        sections: the parts, in order.
        settings: the profile's settings, nested.
        versions: package -> version.
        code: artefact -> the commit that made it.
    """

    title: str
    subtitle: str = ""
    summary: Sequence[str] = ()
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)


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
    environment.filters |= {"table": table, "image": image, "note": note}
    page = environment.get_template("report.html.j2").render(
        report=report, settings=flatten(report.settings)
    )
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair has no bytes


def table(sheet: Sheet) -> Markup:
    """The HTML table of a frame: equal neighbours in header and index are one cell."""
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
    """A picture as a data address, so that a picture cannot load anything.

    Raises:
        NapoError: when the file is missing or neither svg nor png.
    """
    kinds = {".svg": "svg+xml", ".png": "png"}
    if isinstance(figure, Figure):
        kind, buffer = "svg+xml", io.BytesIO()
        with style():
            figure.savefig(buffer, format="svg", metadata=METADATA["svg"])
        content = buffer.getvalue()
    elif figure.suffix not in kinds:
        raise NapoError(f"{figure} is no svg or png file; give the report one of these.")
    elif not figure.is_file():
        raise NapoError(f"{figure} is missing; run the notebook that draws it first.")
    else:
        kind, content = kinds[figure.suffix], figure.read_bytes()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


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

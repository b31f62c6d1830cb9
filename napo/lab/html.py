"""HTML of the explorers: pictures, texts, cards.

A text of a model or a data set passes through `escaped` or `marked` before it becomes content here.
Names (an id, a run, a title) are escaped here.
"""

from __future__ import annotations

import base64
import html
import io
import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Any

from IPython.display import HTML

from napo.workspace.pictures import rgb

SIDE = 200  # pixels of a picture's longer side on the screen
ICON = 96  # pictures up to this many pixels a side keep square pixels
SHARP = 2  # stored pixels per screen pixel of a photograph
QUALITY = 85  # of a photograph as JPEG

# JupyterLab's own variables, so that it follows the light and the dark theme.
STYLE = """<style>
.napo-cards {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(230px, 100%), 1fr));
  gap: 1em; align-items: start; color: var(--jp-content-font-color1, #111)}
.napo-card {min-width: 0}
.napo-picture {display: block; max-width: 100%; height: auto}
.napo-framed {outline: 1px solid var(--jp-border-color2, #bbb)}
.napo-icon {image-rendering: pixelated}
.napo-none {display: flex; align-items: center; justify-content: center; width: 200px;
  max-width: 100%; aspect-ratio: 1; border: 1px dashed var(--jp-border-color1, #999);
  color: var(--jp-content-font-color2, #555)}
.napo-words {overflow-wrap: anywhere; white-space: pre-wrap; max-height: 13em; overflow-y: auto;
  padding: .35em .6em; border: 1px solid var(--jp-border-color2, #bbb); border-radius: 3px;
  line-height: 1.4; background: var(--jp-layout-color1, #fff);
  color: var(--jp-content-font-color1, #111); text-align: start; unicode-bidi: isolate}
.napo-words mark {background: #ffe08a; color: #111; border-radius: 2px; padding: 0 .1em}
.napo-title {font-weight: 600; margin: .5em 0 .15em; overflow-wrap: anywhere;
  color: var(--jp-content-font-color1, #111)}
.napo-title small, .napo-remark {font-weight: 400; color: var(--jp-content-font-color2, #555)}
.napo-remark {overflow-wrap: anywhere; line-height: 1.4}
.napo-table {border-collapse: collapse; width: 100%; table-layout: fixed}
.napo-table th, .napo-table td {text-align: start; vertical-align: top; padding: .25em .5em}
.napo-table th {width: 9em; overflow-wrap: anywhere}
table.napo-sheet th, table.napo-sheet td {text-align: start; vertical-align: top;
  padding: .2em .6em; white-space: pre-wrap; unicode-bidi: isolate}
/* Hide JupyterLab's message that a widget has no kernel: the static picture is shown instead. */
.jp-OutputArea-child:has(.napo-static) + .jp-OutputArea-child:not(:has(.napo-explorer)) {
  display: none}
</style>"""

# Compact tables in the output of a cell, in both themes of JupyterLab.
TABLES = """<style>
.napo-results .scroll {overflow-x: auto}
.napo-results .scroll table {border-collapse: collapse; table-layout: auto; margin: 0 auto 0 0;
  font-size: 12px; line-height: 1.3; border: 0; color: var(--jp-content-font-color1, #111)}
.napo-results .scroll tr:nth-child(n) {background: none}
.napo-results .scroll :not(pre) > code {background: none; padding: 0}
.napo-results .scroll :is(th, td) {padding: 4px 5px; text-align: left; vertical-align: top;
  border: 0; max-width: none; white-space: pre-line}
.napo-results .compact > .scroll :is(td, thead th) {text-align: center}
.napo-results .scroll thead tr:last-child > * {border-bottom: 1px solid currentColor}
.napo-results .scroll thead tr:first-child > *, .napo-results .scroll tbody tr:last-child > * {
  border-block: 0 solid currentColor}
.napo-results .scroll thead tr:first-child > * {border-top-width: 1.5px}
.napo-results .scroll tbody tr:last-child > * {border-bottom-width: 1.5px}
.napo-results tbody th {font-weight: 400; min-width: 8em; max-width: 13em}
.napo-results .wide > .scroll :is(td, thead th) {white-space: nowrap}
.napo-results caption {text-align: left; padding: 4px 0; color: inherit; font-size: 13px}
.napo-results small {font-size: 10.5px; white-space: nowrap; opacity: .75}
.napo-results .published {opacity: .7}
.napo-results th[scope="rowgroup"] {max-width: none; padding-top: 10px; font-style: italic;
  border-top: 1px solid var(--jp-border-color1, #bbb)}
.napo-results .notes {font-size: 12px; line-height: 1.4; margin: 4px 0; max-width: 60em;
  color: var(--jp-content-font-color2, #555)}
.napo-results summary {cursor: pointer; font-size: 12px;
  color: var(--jp-content-font-color2, #555)}
</style>"""


def picture(image: Any, alt: str, side: int = SIDE) -> str:
    """A PIL image (or None) as an `img`; icons keep their pixels, photographs are made smaller.

    `alt` describes it to screen readers; `side` is its longer side on the screen, in pixels.
    """
    if image is None:
        return '<div class="napo-none">no image</div>'
    icon = max(image.size) <= ICON
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    image, kind = rgb(image), "png"
    if not icon:
        image.thumbnail((side * SHARP, side * SHARP))  # never makes it larger
        kind = "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=QUALITY)
    look = "napo-picture napo-framed" + " napo-icon" * icon
    return (
        f'<img class="{look}" alt="{_named(alt)}" width="{width}" height="{height}" '
        f'src="{data_uri(buffer.getvalue(), kind)}">'
    )


def drawing(png: bytes, alt: str) -> str:
    """A figure as an `img` that fills the width."""
    return f'<img class="napo-picture" alt="{_named(alt)}" src="{data_uri(png)}">'


def data_uri(content: bytes, kind: str = "png") -> str:
    """An image as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def words(title: str, content: str, remark: str = "") -> str:
    """A titled box of HTML from `escaped` or `marked`; title and remark are escaped here."""
    return heading(title, remark) + box(content)


def box(content: str) -> str:
    """A box of HTML; a right-to-left text in it does not reverse the text around it."""
    return f'<div class="napo-words" dir="auto">{content or "(empty)"}</div>'


def heading(title: str, remark: str = "") -> str:
    """The title of a text, or of a picture without text."""
    remark = f" <small>{_named(remark)}</small>" if remark else ""
    return f'<div class="napo-title">{_named(title)}{remark}</div>'


def against(first: str, second: str) -> str:
    """The second text as HTML; words that differ from the first are marked."""
    return marked(first, second)[1]


def remark(text: str) -> str:
    """A line of ours about the content."""
    return f'<div class="napo-remark" role="status">{_named(text)}</div>'


def card(*parts: str) -> str:
    """A picture with its texts."""
    return f'<div class="napo-card">{"".join(parts)}</div>'


def cards(parts: Iterable[str]) -> str:
    """Cards side by side, as many as fit."""
    return f'<div class="napo-cards">{"".join(parts)}</div>'


def gallery(items: Iterable[tuple[Any, str]]) -> HTML:
    """Pictures with text below them, as a notebook cell shows them.

    Args:
        items: pairs of a PIL image and a text; its line breaks are kept.
    """
    return HTML(
        STYLE + cards(card(picture(image, text), box(escaped(text))) for image, text in items)
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names (escaped here) and HTML from `escaped` or `marked`."""
    body = "".join(
        f'<tr><th scope="row">{_named(name)}</th><td>{box(content)}</td></tr>'
        for name, content in rows
    )
    return f'<table class="napo-table"><tbody>{body}</tbody></table>'


def _named(text: str) -> str:
    """Text within a line or an attribute."""
    return escaped(text).replace("\n", " ")


def escaped(text: str) -> str:
    """Text as HTML that shows the text and does nothing; control characters become visible."""
    visible = "".join(
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in text.replace("\r\n", "\n")
    )
    return html.escape(visible)


def marked(first: str, second: str) -> tuple[str, str]:
    """Two texts as HTML; words that differ are marked in both."""
    one, two = (re.findall(r"[^\s]+|\n+", text) for text in (first, second))
    sides: tuple[list[str], list[str]] = ([], [])
    for change, a, b, c, d in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        for side, words in zip(sides, (one[a:b], two[c:d]), strict=True):
            text = escaped(" ".join(words))
            if text:
                side.append(text if change == "equal" else f"<mark>{text}</mark>")
    joined = (re.sub(" ?\n ?", "\n", " ".join(side)) for side in sides)
    return next(joined), next(joined)

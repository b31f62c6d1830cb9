"""Pictures with text beneath: scenes, rows with their responses, what the model sees when masked.

Texts come from models and data sets: they are drawn as they are, never read as markup.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from napo.results.figures.style import FAINT, INK, PAGE, new_figure, quiet_glyphs, style

SIZE, LEADING = 7.5, 0.128  # of the text: points, and inches a line
LONGEST, WIDEST = 5000, 400  # characters of a text, of a line, that are looked at
MOST = 14  # lines under a picture; the rest is an ellipsis
LARGEST, MARGIN = 1.5, 0.08  # side of a picture, space around a card: inches
SMALL = 96  # pixels a side: up to it, pixels stay squares


def gallery(items: Sequence[tuple[Any, str]], columns: int = 4) -> Figure:
    """Images with text beneath, so many to a row.

    Args:
        items: pairs of an image (PIL or array) and a text; its line breaks are kept.
        columns: pictures a row.
    """
    return _cards([("", image, text) for image, text in items], columns)


def masks(items: Sequence[tuple[str, Any, str]], columns: int = 4) -> Figure:
    """What the model sees under each mask.

    Args:
        items: triples of a title, the image that the model gets (None: none), and its text.
        columns: pictures a row.
    """
    return _cards(items, columns)


def _cards(items: Sequence[tuple[str, Any, str]], columns: int) -> Figure:
    """The figure; a row of cards is as high as its longest text."""
    columns = max(1, min(columns, len(items)))
    wide = PAGE / columns
    room = wide - 2 * MARGIN
    side = min(room, LARGEST)
    with style(), quiet_glyphs():
        texts = [wrap(text, room) for _, _, text in items]
        titles = [wrap(title, room, weight="bold")[:2] for title, _, _ in items]
        rows = [range(at, min(at + columns, len(items))) for at in range(0, len(items), columns)]
        above = [LEADING * max(len(titles[at]) for at in row) for row in rows]
        below = [LEADING * max(len(texts[at]) for at in row) for row in rows]
        heights = [a + side + b + 3 * MARGIN for a, b in zip(above, below, strict=True)]
        figure = new_figure(PAGE, sum(heights) or 0.5)
        figure.set_layout_engine("none")
        top = figure.get_figheight()
        for number, row in enumerate(rows):
            picture = top - MARGIN - above[number]
            for place, at in enumerate(row):
                left = place * wide + MARGIN
                title = picture + LEADING * (len(titles[at]) - 1)
                _write(figure, titles[at], left, title + 0.03, va="bottom", weight="bold")
                _picture(figure, items[at][1], left, picture - side, side)
                _write(figure, texts[at], left, picture - side - 0.06, va="top")
            top -= heights[number]
        return figure


def wrap(text: str, width: float, *, weight: str = "normal") -> list[str]:
    """Break a text into lines of at most so many inches; what follows a break is indented.

    Words that are too long are broken; after 14 lines an ellipsis stands for the rest. Call within
    `style`.
    """
    font = FontProperties(size=SIZE, weight=weight)

    def fits(line: str) -> bool:
        if len(line) > WIDEST:
            return False
        return text_to_path.get_text_width_height_descent(line, font, False)[0] / 72 <= width

    lines: list[str] = []
    for paragraph in text[:LONGEST].splitlines():
        line = ""
        for word in _clean(paragraph).split():
            if line.strip() and not fits(f"{line} {word}"):
                lines.append(line)
                line = "  "
            line = f"{line}{' ' * bool(line.strip())}{word}"
            while len(line) > 3 and len(lines) <= MOST and not fits(line):  # a long word
                cut = _break(line, fits)
                lines.append(line[:cut])
                line = "  " + line[cut:]
            if len(lines) > MOST:
                break
        if line.strip():
            lines.append(line)
        if len(lines) > MOST:
            return [*lines[: MOST - 1], "…"]
    return lines


def _break(word: str, fits: Callable[[str], bool]) -> int:
    """Where to break a word that is too long: at the line's end, or before it after a bracket."""
    end = bisect(range(4, len(word)), False, key=lambda at: not fits(word[:at])) + 3
    return word.rfind("]", end // 2, end) + 1 or end  # a [MASK] stays whole


def _clean(text: str) -> str:
    """Characters that cannot be drawn (control, surrogate, private) as replacement marks."""
    text = text.replace("\t", " ")
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Co") else c for c in text)


def _write(figure: Figure, lines: Sequence[str], left: float, top: float, **look: Any) -> None:
    width, height = figure.get_size_inches()
    for at, line in enumerate(lines):
        y = (top - LEADING * at) / height
        figure.text(left / width, y, line, fontsize=SIZE, parse_math=False, **look)


def _picture(figure: Figure, image: Any, left: float, bottom: float, side: float) -> None:
    width, height = figure.get_size_inches()
    ax = figure.add_axes((left / width, bottom / height, side / width, side / height))
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.5)
    if image is None:
        _nothing(ax)
        return
    pixels = np.asarray(image)
    how = "nearest" if max(pixels.shape[:2]) <= SMALL else "antialiased"
    ax.imshow(pixels, interpolation=how, cmap="gray")
    ax.set_anchor("SW")


def _nothing(ax: Axes) -> None:
    ax.patch.set(facecolor="#f2f2f2", hatch="////", edgecolor="#d0d0d0")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2.5}
    ax.text(0.5, 0.5, "no image", transform=ax.transAxes, ha="center", va="center", bbox=box,
            color=INK, fontsize=SIZE)  # fmt: skip

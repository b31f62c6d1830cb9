"""Pictures with text beneath: scenes, rows with their responses, masked inputs.

Texts come from models and data sets. They are drawn as they are, never read as markup.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
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
    """Images with text beneath.

    Args:
        items: pairs of an image (PIL or array) and a text; line breaks are kept.
        columns: pictures in a row.
    """
    return masks([("", image, text) for image, text in items], columns)


def masks(items: Sequence[tuple[str, Any, str]], columns: int = 4) -> Figure:
    """Images with a title above and text beneath, such as the model's input under each mask.

    Args:
        items: triples of a title, an image (None: no image), and a text.
        columns: pictures in a row.
    """
    columns = max(1, min(columns, len(items)))
    width = PAGE / columns
    room = width - 2 * MARGIN
    side = min(room, LARGEST)
    with style(), quiet_glyphs():
        cards = [
            (wrap(title, room, weight="bold")[:2], image, wrap(text, room))
            for title, image, text in items
        ]
        rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
        # A row is as high as its longest title and its longest text.
        above = [LEADING * max(len(title) for title, _, _ in row) for row in rows]
        below = [LEADING * max(len(text) for _, _, text in row) for row in rows]
        heights = [a + side + b + 3 * MARGIN for a, b in zip(above, below, strict=True)]
        figure = new_figure(PAGE, sum(heights) or 0.5)
        figure.set_layout_engine("none")
        top = figure.get_figheight()
        for row, space, height in zip(rows, above, heights, strict=True):
            picture = top - MARGIN - space
            for column, (title, image, text) in enumerate(row):
                left = column * width + MARGIN
                base = picture + LEADING * (len(title) - 1) + 0.03
                _write(figure, title, left, base, va="bottom", weight="bold")
                _show(figure, image, left, picture - side, side)
                _write(figure, text, left, picture - side - 0.06, va="top")
            top -= height
        return figure


def wrap(text: str, width: float, *, weight: str = "normal") -> list[str]:
    """Break a text into lines of at most `width` inches; continued lines are indented.

    Words that are too long are broken. After 14 lines an ellipsis stands for the rest. Characters
    that cannot be drawn (control, surrogate, private) become replacement marks. Call within
    `style`.
    """
    font = FontProperties(size=SIZE, weight=weight)

    def too_long(line: str) -> bool:
        if len(line) > WIDEST:
            return True
        return text_to_path.get_text_width_height_descent(line, font, False)[0] / 72 > width

    lines: list[str] = []
    for paragraph in text[:LONGEST].splitlines():
        drawable = "".join(
            "\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Co") else c
            for c in paragraph.replace("\t", " ")
        )
        line = ""
        for word in drawable.split():
            if line.strip() and too_long(f"{line} {word}"):
                lines.append(line)
                line = "  "
            line = f"{line}{' ' * bool(line.strip())}{word}"
            while len(line) > 3 and len(lines) <= MOST and too_long(line):
                end = bisect(range(4, len(line)), False, key=lambda cut: too_long(line[:cut])) + 3
                end = line.rfind("]", end // 2, end) + 1 or end  # a [MASK] is not broken
                lines.append(line[:end])
                line = "  " + line[end:]
            if len(lines) > MOST:
                break
        if line.strip():
            lines.append(line)
        if len(lines) > MOST:
            return [*lines[: MOST - 1], "…"]
    return lines


def _write(figure: Figure, lines: Sequence[str], left: float, top: float, **look: Any) -> None:
    """Write lines below each other; `left` and `top` in inches."""
    width, height = figure.get_size_inches()
    for index, line in enumerate(lines):
        y = (top - LEADING * index) / height
        figure.text(left / width, y, line, fontsize=SIZE, parse_math=False, **look)


def _show(figure: Figure, image: Any, left: float, bottom: float, side: float) -> None:
    """Draw an image, or a hatched square without one; places in inches."""
    width, height = figure.get_size_inches()
    ax = figure.add_axes((left / width, bottom / height, side / width, side / height))
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.5)
    if image is None:
        ax.patch.set(facecolor="#f2f2f2", hatch="////", edgecolor="#d0d0d0")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2.5}
        ax.text(0.5, 0.5, "no image", transform=ax.transAxes, ha="center", va="center", bbox=box,
                color=INK, fontsize=SIZE)  # fmt: skip
    else:
        pixels = np.asarray(image)
        interpolation = "nearest" if max(pixels.shape[:2]) <= SMALL else "antialiased"
        ax.imshow(pixels, interpolation=interpolation, cmap="gray")
        ax.set_anchor("SW")

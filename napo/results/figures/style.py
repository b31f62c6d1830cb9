"""What all figures share: the style, the colours, how a figure begins, ends and is saved."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napo.config.variants import VARIANTS
from napo.workspace import provenance
from napo.workspace.files import atomic_file, write_json
from napo.workspace.hashing import hash_file

COLUMN, PAGE = 3.3, 6.9  # inches: one column and both of a two-column paper
INK, FAINT = "#1a1a1a", "#767676"

# Okabe and Ito's palette, which the colour-blind tell apart; their lightness differs in grey too.
BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE, YELLOW, BLACK = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip

# A term of the objective has one colour, and the variants that turn on it share its hue.
TERM_COLOURS = {
    "rejected": INK,
    "language_biased": VERMILION,
    "vision_biased": BLUE,
    "chosen_corrupted": PURPLE,
    "anchor": GREEN,
}
TERM_LINES = {
    "rejected": "-",
    "language_biased": (0, (5, 1.5)),
    "vision_biased": (0, (1.2, 1.2)),
    "chosen_corrupted": (0, (5, 1.5, 1.2, 1.5)),
    "anchor": (0, (3, 1, 1, 1, 1, 1)),
}
_OTHERS = (YELLOW, "#999933", "#882255", "#44AA99", "#AA4499", "#332288")

# They come with matplotlib, so a figure is the same on every machine; DejaVu has what STIX lacks.
FONTS = ["STIXGeneral", "DejaVu Sans"]

_STYLE = {
    "font.family": FONTS,
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 150,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "napo",  # otherwise element names are random
}
# Dates and versions would make the same figure other bytes.
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


@contextmanager
def style() -> Iterator[None]:
    """The one style context; outside of it matplotlib is as the user has it."""
    with mpl.rc_context():
        mpl.rcdefaults()  # what a user's matplotlibrc says must not change a figure
        mpl.rcParams.update(_STYLE)
        yield


def variant_colour(name: str) -> str:
    """The colour of a variant, the same in every figure; a run of LoRA has its variant's."""
    name = name.removesuffix("-lora")
    entry = VARIANTS.get(name)
    if entry and entry.colour:
        return entry.colour
    return FAINT if name == "base" else _OTHERS[sum(name.encode()) % len(_OTHERS)]


class _Shown(Figure):
    """A figure that a notebook shows without pyplot, whose state and backend stay untouched."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with style(), quiet_glyphs():
            self.savefig(buffer, format="png", dpi=150, metadata=METADATA["png"])
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, with its layout still open; call within `style`."""
    figure = _Shown(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    return figure


@contextmanager
def quiet_glyphs() -> Iterator[None]:
    """No warning for characters that no bundled font has; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def settle(figure: Figure) -> Figure:
    """Fix the layout, so that drawing again, at any resolution, gives the same picture."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def letter(axes: Sequence[Axes]) -> None:
    """Mark panels (a), (b) ... before their titles."""
    for at, ax in enumerate(axes):
        ax.set_title(f"({chr(97 + at)}) {ax.get_title(loc='left')}", loc="left")


def save(figure: Figure, folder: Path, name: str, data: pd.DataFrame) -> list[Path]:
    """Write a figure as pdf, svg and png, and the data behind it as csv; same figure, same bytes.

    What made them, and their hashes, go to `<name>.provenance.json`.

    Args:
        figure: as the functions of this package return it.
        folder: made if it is missing.
        name: file name without suffix.
        data: what the figure was drawn from.

    Returns:
        The four paths.
    """
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in (*METADATA, "csv")]
    for path in paths[:-1]:
        kind = path.suffix.removeprefix(".")
        with style(), quiet_glyphs(), atomic_file(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=300, metadata=METADATA[kind])
    with atomic_file(paths[-1]) as temporary:
        data.to_csv(temporary, index=False, lineterminator="\n")
    hashes = {path.name: hash_file(path) for path in paths}
    write_json(Path(folder) / f"{name}.{provenance.FILE}", {**provenance.record(), "files": hashes})
    return paths

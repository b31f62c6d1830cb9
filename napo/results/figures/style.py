"""Style, colours and files of all figures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from napo.config.variants import VARIANTS
from napo.workspace import provenance
from napo.workspace.files import atomic_file, write_json
from napo.workspace.hashing import hash_file

COLUMN, PAGE = 3.3, 6.9  # inches: one column and both of a two-column paper
INK, FAINT = "#1a1a1a", "#767676"

# Okabe and Ito's palette: distinct for colour-blind readers, and of different lightness in grey.
BLUE, GREEN, ORANGE, VERMILION, PURPLE, YELLOW = (
    "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#F0E442",
)  # fmt: skip

TERM_LOOKS = {  # term of the objective -> colour and line style; its variants share the hue
    "rejected": (INK, "-"),
    "language_biased": (VERMILION, (0, (5, 1.5))),
    "vision_biased": (BLUE, (0, (1.2, 1.2))),
    "chosen_corrupted": (PURPLE, (0, (5, 1.5, 1.2, 1.5))),
    "anchor": (GREEN, (0, (3, 1, 1, 1, 1, 1))),
}
OTHERS = (YELLOW, "#999933", "#882255", "#44AA99", "#AA4499", "#332288")

STYLE = {
    # Both come with matplotlib, so figures are equal everywhere; DejaVu has what STIX lacks.
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 7),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "axes.unicode_minus": True,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "hatch.linewidth": 0.5,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "white"),
    "figure.dpi": 150,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "napo",  # otherwise element names are random
}
# Dates and versions would change the bytes of an unchanged figure.
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


@contextmanager
def style() -> Iterator[None]:
    """The style context of all figures; it leaves the user's settings of matplotlib alone."""
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change a figure
        mpl.rcParams.update(STYLE)
        yield


def variant_colour(name: str) -> str:
    """The colour of a variant, the same in every figure, with or without "-lora"."""
    name = name.removesuffix("-lora")
    if name in VARIANTS and VARIANTS[name].colour:
        return VARIANTS[name].colour
    return FAINT if name == "base" else OTHERS[sum(name.encode()) % len(OTHERS)]


def sort_variants(names: Iterable[str]) -> list[str]:
    """Variants in the order of the figures: the base, those of `VARIANTS`, then others."""
    order = {name: place for place, name in enumerate(["base", *VARIANTS])}
    return sorted(names, key=lambda name: (order.get(name.removesuffix("-lora"), len(order)), name))


class NotebookFigure(Figure):
    """A figure that notebooks show without pyplot, whose state and backend stay untouched."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with style():
            self.savefig(buffer, format="png", dpi=150, metadata=METADATA["png"])
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, with its layout still open; call within `style`."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    return figure


def settle(figure: Figure) -> Figure:
    """Fix the layout, so that drawing again, at any resolution, gives the same picture."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def save(
    figure: Figure,
    folder: Path,
    name: str,
    data: pd.DataFrame,
    inputs: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a figure as pdf, svg and png, and its data as csv; same figure, same bytes.

    Provenance, hashes of the files and the fingerprints of the figure's `inputs` go to
    `<name>.provenance.json`. Returns the four paths.
    """
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in (*METADATA, "csv")]
    for path in paths[:-1]:
        kind = path.suffix.removeprefix(".")
        with style(), atomic_file(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=300, metadata=METADATA[kind])
    with atomic_file(paths[-1]) as temporary:
        data.to_csv(temporary, index=False, lineterminator="\n")
    hashes = {path.name: hash_file(path) for path in paths}
    record = {**provenance.record(), "files": hashes, "inputs": dict(inputs or {})}
    write_json(Path(folder) / f"{name}.{provenance.FILE}", record)
    return paths

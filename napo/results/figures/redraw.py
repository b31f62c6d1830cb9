"""Figs. 3 and 4 drawn again without a notebook: from the loss, and from the stored margins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from napo.errors import NapoError, unknown
from napo.results.figures.losses import fig3, loss_curves
from napo.results.figures.margins import fig4
from napo.results.figures.style import COLUMN, PAGE, save
from napo.workspace import provenance
from napo.workspace.hashing import hash_file

DRAWN = {"fig3": fig3, "fig4": fig4}


def redraw(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Draw Figs. 3 and 4 for a page and for a column, with the bytes of notebooks 03 and 04.

    Args:
        folder: the profile's folder of figures. It holds Fig. 4's margins, `fig4.csv`.
        names: "fig3", "fig4"; none: Fig. 3, and Fig. 4 where its margins are stored.

    Raises:
        NapoError: for an unknown name, or when the margins are missing or damaged.
    """
    for name in names:
        if name not in DRAWN:
            raise unknown("figure", name, DRAWN)
    if not names:
        names = [name for name in DRAWN if name == "fig3" or (folder / "fig4.csv").is_file()]
    paths = []
    for name in names:
        data = loss_curves() if name == "fig3" else stored_margins(folder)
        record = provenance.figure_record(folder / f"{name}.{provenance.FILE}")
        digest = record["files"].get(f"{name}.csv")
        if name == "fig4" and digest not in (None, hash_file(folder / "fig4.csv")):
            raise NapoError(
                f"{folder / 'fig4.csv'} was changed after it was written; run "
                "notebooks/04_margin_distributions.ipynb again."
            )
        inputs = record.get("inputs")
        for suffix, width in (("", PAGE), ("-column", COLUMN)):
            paths += save(DRAWN[name](data, width=width), folder, name + suffix, data, inputs)
    return paths


def stored_margins(folder: Path) -> pd.DataFrame:
    """The margins that notebook 04 saved beside Fig. 4."""
    path = folder / "fig4.csv"
    if not path.is_file():
        raise NapoError(f"{path} is missing; run notebooks/04_margin_distributions.ipynb first.")
    texts = dict.fromkeys(("id", "kind", "group", "label"), str)
    exact = dict.fromkeys(("margin_sum", "margin_mean"), float)  # pandas may round the last digit
    try:
        margins = pd.read_csv(path, dtype=texts, keep_default_na=False, converters=exact)
    except ValueError:
        margins = pd.DataFrame()
    if not {*texts, *exact, "equal_to_chosen"} <= set(margins.columns):
        raise NapoError(
            f"{path} is not a table of margins; run notebooks/04_margin_distributions.ipynb again."
        )
    return margins

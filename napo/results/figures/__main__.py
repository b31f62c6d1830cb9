"""Draw figures again, without a notebook: Fig. 3 from the loss, Fig. 4 from the stored margins.

    python -m napo.results.figures --profile tiny           both, for a page and for a column
    python -m napo.results.figures fig4 --workspace /path

The files are those that notebooks 03 and 04 write, with the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.results import figures
from napo.workspace import provenance
from napo.workspace.files import fingerprint
from napo.workspace.folders import Workspace

DRAWN = {"fig3": figures.fig3, "fig4": figures.fig4}


def stored_margins(folder: Path) -> pd.DataFrame:
    """Fig. 4's margins, as they were saved beside it.

    Raises:
        NapoError: when they are not there, or are no margins.
    """
    path = folder / "fig4.csv"
    if not path.is_file():
        raise NapoError(f"{path} is missing; run notebooks/04_margin_distributions.ipynb first.")
    texts = dict.fromkeys(("id", "kind", "group", "label"), str)
    exact = dict.fromkeys(("margin_sum", "margin_mean"), float)  # all digits, whatever pandas does
    try:
        found = pd.read_csv(path, dtype=texts, keep_default_na=False, converters=exact)
    except ValueError:
        found = pd.DataFrame()
    if not {*texts, *exact, "equal_to_chosen"} <= set(found.columns):
        raise NapoError(
            f"{path} is not a table of margins; run notebooks/04_margin_distributions.ipynb again."
        )
    return found


def draw(name: str, folder: Path) -> list[Path]:
    """Draw one figure in both widths and save it into a folder; the files that were written."""
    data = figures.loss_curves() if name == "fig3" else stored_margins(folder)
    written = []
    for suffix, width in (("", figures.PAGE), ("-column", figures.COLUMN)):
        written += figures.save(DRAWN[name](data, width=width), folder, name + suffix, data)
    return written


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m napo.results.figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="fig3|fig4", help="which; none: both")
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    given = parser.parse_args(arguments)
    try:
        profile = load_profile(given.profile)
        folder = Workspace.open(given.workspace, profile.name).figures
        provenance.ask(profile.name, fingerprint(profile.model_dump()))
        for name in given.names or _there(folder):
            if name not in DRAWN:
                raise NapoError(f"There is no figure {name!r} to draw; known are fig3 and fig4.")
            for path in draw(name, folder):
                print(path)
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    return 0


def _there(folder: Path) -> list[str]:
    """All that can be drawn; Fig. 4 needs margins, which nobody has to have yet."""
    return [name for name in DRAWN if name != "fig4" or (folder / "fig4.csv").is_file()]


if __name__ == "__main__":
    sys.exit(main())

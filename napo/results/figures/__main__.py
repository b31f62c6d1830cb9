"""Draw Figs. 3 and 4 again, without a notebook.

python -m napo.results.figures --profile tiny           both, for a page and for a column
python -m napo.results.figures fig4 --workspace /path
"""

from __future__ import annotations

import argparse
import sys

from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.results.figures.redraw import redraw
from napo.workspace import provenance
from napo.workspace.files import fingerprint
from napo.workspace.folders import Workspace


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m napo.results.figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="fig3|fig4", help="which; none: both")
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    options = parser.parse_args(arguments)
    try:
        profile = load_profile(options.profile)
        provenance.ask(profile.name, fingerprint(profile.model_dump()))
        folder = Workspace.open(options.workspace, profile.name).figures
        print(*redraw(folder, options.names), sep="\n")
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

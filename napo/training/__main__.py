"""`python -m napo.training RUN.yaml`: one training run, alone or under `accelerate launch`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from napo.config.profile import load_run
from napo.errors import NapoError
from napo.training.run import run_from_file


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m napo.training RUN.yaml`, alone or under `accelerate launch`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        print("usage: python -m napo.training RUN.yaml", file=sys.stderr)
        return 2
    try:
        final = run_from_file(load_run(Path(given[0])))
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"final": str(final)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

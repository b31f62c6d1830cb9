"""One training run, alone or in several processes.

    python -m napo.training RUN.yaml
    accelerate launch --config_file napo/training/accelerate/zero2.yaml -m napo.training RUN.yaml

The keys of RUN.yaml are those of `napo.config.settings.Run`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from napo.config.profile import load_run
from napo.errors import NapoError
from napo.training.run import run_from_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the run of a file; the exit status is 1 after an error, 2 for a wrong call."""
    files = list(sys.argv[1:] if arguments is None else arguments)
    if len(files) != 1:
        print("usage: python -m napo.training RUN.yaml", file=sys.stderr)
        return 2
    try:
        final = run_from_file(load_run(Path(files[0])))
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"final": str(final)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

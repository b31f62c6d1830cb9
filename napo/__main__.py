"""`python -m napo`, the same as the command `napo`."""

import sys

from napo.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())

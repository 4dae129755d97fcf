"""`python pipelines/rollback.py NAME`: undoes the last move of a registered model's champion."""

import sys
from pathlib import Path

# Python puts this folder first on the path, where our own file names would shadow packages.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from e2eft.cli import rollback  # noqa: E402

if __name__ == "__main__":
    sys.exit(rollback())

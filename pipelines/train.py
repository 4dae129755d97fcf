"""`ray job submit --working-dir . -- python pipelines/train.py RECIPE ...`; see --help."""

import sys
from pathlib import Path

# Python puts this folder first on the path, where our own file names would shadow packages.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from e2eft.cli import run_stage  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_stage("train"))

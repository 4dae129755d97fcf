"""One table of finished scores, and how sure their differences are.

    python pipelines/compare.py SCORES SCORES [...] [--metric abs_rel --metric delta1]

Each SCORES is an artifact of pipelines/evaluate.py: a folder, file:// or s3:// URI. All must be of
one protocol and of the same data. Differences are to the first, with the 95 % interval of a paired
bootstrap over images: an interval without 0 says that the two differ.
"""

import argparse
import sys
from pathlib import Path

# Python puts this folder first on the path, where our own file names would shadow packages.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from e2eft.stdout import for_a_reader  # noqa: E402


@for_a_reader()
def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", nargs="+", help="scores artifacts")
    parser.add_argument("--metric", action="append", default=[], help="repeat for several")
    arguments = parser.parse_args()
    from e2eft.evaluate import comparison_table, differences_table

    try:
        print(comparison_table(arguments.scores, arguments.metric))
        if len(arguments.scores) > 1:
            print(differences_table(arguments.scores, arguments.metric))
    except ValueError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

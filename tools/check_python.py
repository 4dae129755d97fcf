"""Fails with one line if this Python is not one that the lock was made for."""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"Python {version} is not supported; use 3.11 or 3.12: make PYTHON=python3.11 ...")

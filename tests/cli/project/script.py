# ruff: noqa: INP001 - a folder of files that is copied, no package
"""A script without a main guard: importing it ends the program."""

from __future__ import annotations

import sys

sys.exit("usage: script.py FILE")

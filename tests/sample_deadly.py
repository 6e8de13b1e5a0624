"""A module whose import kills a child process; in the program itself it is harmless."""

from __future__ import annotations

import multiprocessing
import os

if multiprocessing.parent_process() is not None:
    os._exit(3)


def nothing() -> None:
    """Do nothing."""

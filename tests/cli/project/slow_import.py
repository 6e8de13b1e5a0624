# ruff: noqa: INP001 - a folder of files that is copied, no package
"""A module that takes its time to be imported."""

from __future__ import annotations

import time
from typing import Any

time.sleep(1.0)


def same(value: Any) -> Any:
    """Give back the argument."""
    return value

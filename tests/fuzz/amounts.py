"""How many values a test of garbage tries: few in the ordinary suite, many in `make soak`."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["counts"]

SOAK = pytest.mark.soak, pytest.mark.timeout(3_600)


def counts(short: int, long: int) -> Any:
    """Have a test run with `short` values in the ordinary suite, and with `long` in `make soak`."""
    return pytest.mark.parametrize("total", [short, pytest.param(long, marks=SOAK)])

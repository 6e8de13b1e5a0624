"""Fixtures: garbage."""

from __future__ import annotations

import pytest

from tests.fuzz.garbage import Garbage


@pytest.fixture
def garbage() -> Garbage:
    """Give garbage out of a seed that a failed test shows."""
    return Garbage()

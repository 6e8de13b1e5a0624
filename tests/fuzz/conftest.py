"""Fixtures: garbage, and how much of it."""

from __future__ import annotations

import pytest

from tests.fuzz.garbage import Garbage
from tests.rq.conftest import client, join, store, url

__all__ = ["client", "garbage", "join", "store", "url"]


@pytest.fixture
def garbage() -> Garbage:
    """Give garbage out of a seed that a failed test shows."""
    return Garbage()

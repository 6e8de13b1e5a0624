"""Fixtures: garbage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.garbage import Garbage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    """Give garbage out of a seed that a failed test shows, and say in the end how much of it there was."""
    made = Garbage()
    yield made
    print(f"{made.count} values")

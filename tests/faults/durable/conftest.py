"""Fixtures for the faults of durable queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.durable.fleet import QUICK, Fleet
from tests.redis_server import RedisServer
from tests.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: The schemes of all durable executors.
SCHEMES = list(dict.fromkeys(row.scheme for row in VARIANTS if "durable" in row.capabilities))


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Build fleets for one test; they are ended after it."""
    made: list[Fleet] = []

    def make(url: str, **settings: str) -> Fleet:
        made.append(Fleet(url, tmp_path / f"fleet-{len(made)}", **settings))
        return made[-1]

    yield make
    while made:
        made.pop().close()


@pytest.fixture(params=SCHEMES)
def fleet(
    request: pytest.FixtureRequest, fresh_url: Callable[[str, str], str], make_fleet: Callable[..., Fleet]
) -> Fleet:
    """Give a fleet without workers on each kind of store, with the shortest lease."""
    return make_fleet(fresh_url(request.param, QUICK))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a redis-server for one test alone, which appends every write to its file at once."""
    with RedisServer(tmp_path / "redis", appendonly=True, options=("--appendfsync", "always")) as server:
        yield server

"""Fixtures: a store of each kind, and workers on it that can die.

Who brings a store adds it to `STORES`: how it is opened, and how a worker of it is made to look dead.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from taskq.connect import open_store
from taskq.testing import MemoryStore
from tests.redis_server import bundled, installed
from tests.store_steps import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from taskq.store import Store, WorkerSession


@dataclass
class Kind:
    """A store of one kind, as the tests use it."""

    store: Store
    kill: Callable[[Any, str], None]
    maintain: Callable[[WorkerSession], int] = lambda session: session.run_maintenance()


def memory() -> Kind:
    """Return a store in memory."""
    return Kind(MemoryStore(), lambda session, _name: session.die())


def sqlite(folder: Path) -> Kind:
    """Return a queue file, whose workers are dead when nobody reads their FIFO."""
    folder.mkdir(mode=0o700)
    store = open_store(f"sqlite://{folder}/queue.db?durability=normal")
    return Kind(store, lambda session, _name: session.fifo.after_fork_in_child())


def redis(url: str) -> Kind:
    """Return a database of Redis, whose workers are dead when their lease has run out."""
    store: Any = open_store(url)

    def maintain(_: WorkerSession) -> int:
        """Sweep as one that trusts what it sees: a server of tests has only just been started."""
        return int(store.client.call(store.address.scripts.sweep, [1, ["default"]]))

    return Kind(store, lambda _session, name: store.client.command("ZADD", store.redis_keys.LEASES, 1, name), maintain)


@pytest.fixture(params=["memory", "sqlite", "redis", *(["valkey"] if installed() and bundled() else [])])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    """Give an empty store of each kind."""
    if request.param == "memory":
        made = memory()
    elif request.param == "sqlite":
        made = sqlite(tmp_path / "q")
    else:
        made = redis(request.getfixturevalue(f"{request.param}_server").fresh_url())
    yield made
    made.store.close()


@pytest.fixture
def store(kind: Kind) -> Store:
    """Give the store itself."""
    return kind.store


@pytest.fixture
def join(store: Store) -> Iterator[Callable[..., WorkerSession]]:
    """Sign workers on, and off afterwards."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "w", queues: Sequence[str] = ("default",), **more: Any) -> WorkerSession:
            session = store.join(worker(name, queues, **more))
            stack.callback(session.leave)
            return session

        yield make


@pytest.fixture
def member(join: Callable[..., WorkerSession]) -> WorkerSession:
    """Give a worker."""
    return join()


@pytest.fixture
def maintain(kind: Kind) -> Callable[[WorkerSession], int]:
    """Do what any worker does for all now and then."""
    return kind.maintain


@pytest.fixture
def die(kind: Kind) -> Callable[[WorkerSession, str], None]:
    """Do to a worker what its death does."""
    return kind.kill

"""Fixtures: a queue file of the test's own, stores and workers on it, all closed afterwards."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from taskq.executors.sqlite.store import SQLiteStore
from tests.store_steps import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from taskq.store import WorkerSession


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a queue file that is not there yet, in a folder of its own."""
    folder = tmp_path / "q"
    folder.mkdir(mode=0o700)
    return folder / "queue.db"


@pytest.fixture
def url(path: Path) -> str:
    """Give the URL of the file; NORMAL, since a test without a power cut sees no difference but the time."""
    return f"sqlite://{path}?durability=normal"


@pytest.fixture
def open_store(url: str) -> Iterator[Callable[..., SQLiteStore]]:
    """Open stores, by default on the test's own file, and close them afterwards."""
    with contextlib.ExitStack() as stack:

        def make(where: str = url) -> SQLiteStore:
            store = SQLiteStore(where)
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(open_store: Callable[[], SQLiteStore]) -> SQLiteStore:
    """Give a store on the test's own file."""
    return open_store()


@pytest.fixture
def join(store: SQLiteStore) -> Iterator[Callable[..., Any]]:
    """Sign workers on, and off afterwards."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "w", queues: Sequence[str] = ("default",), at: SQLiteStore | None = None) -> WorkerSession:
            member = (at or store).join(worker(name, queues))
            stack.callback(member.leave)
            return member

        yield make


@pytest.fixture
def member(join: Callable[..., WorkerSession]) -> WorkerSession:
    """Give a worker."""
    return join()

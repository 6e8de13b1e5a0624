"""A queue on a store in memory, and a worker thread for it."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from taskq import TaskQueue, connect, perform
from taskq.executors.durable.executor import DurableExecutor
from tests.memory_store import MemoryStore, MemoryWorker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store() -> MemoryStore:
    """Give an empty store."""
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskQueue]:
    """Give a queue on it; nobody runs its jobs."""
    monkeypatch.setattr(connect, "open_store", lambda _url: store)
    monkeypatch.setitem(connect.STORES, "memory", "")
    perform.allow(["tests.sample_tasks"])
    made = TaskQueue("memory://")
    yield made
    executor: object = made._executor
    assert isinstance(executor, DurableExecutor)
    made.shutdown(wait=False, cancel_futures=True)
    executor._listeners[0].stop(wait=True)
    del made, executor
    gc.collect()
    perform._allowed = None


@pytest.fixture
def worker(store: MemoryStore, queue: TaskQueue) -> Iterator[MemoryWorker]:
    """Have the jobs run by a thread of this process."""
    with MemoryWorker(store) as thread:
        yield thread

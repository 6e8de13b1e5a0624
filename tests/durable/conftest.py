"""A queue on a store in memory, and a worker thread for it."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from taskq import TaskQueue, connect, perform
from taskq.executors.durable.executor import DurableExecutor
from tests.observed_store import ObservedStore, ThreadWorker
from tests.seams import executor_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store() -> ObservedStore:
    """Give an empty store."""
    return ObservedStore()


@pytest.fixture
def queue(store: ObservedStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskQueue]:
    """Give a queue on it; nobody runs its jobs."""
    monkeypatch.setattr(connect, "open_store", lambda _url: store)
    monkeypatch.setitem(connect.STORES, "memory", "")
    perform.allow(["tests.sample_tasks"])
    made = TaskQueue("memory://")
    yield made
    executor = executor_of(made)
    assert isinstance(executor, DurableExecutor)
    made.shutdown(wait=False, cancel_futures=True)
    executor.listeners[0].stop(wait=True)
    del made, executor
    gc.collect()
    perform.disallow()


@pytest.fixture
def worker(store: ObservedStore, queue: TaskQueue) -> Iterator[ThreadWorker]:
    """Have the jobs run by a thread of this process."""
    with ThreadWorker(store) as thread:
        yield thread

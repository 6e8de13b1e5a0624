"""A store in memory: for tests of an application that uses taskq, and the model of what a store has to do.

    store = MemoryStore()
    with TaskQueue(store.url) as queue:            jobs go into the store
        job = queue.submit(resize, "a.png")
        store.run_jobs()                           they run here, in this thread
        assert job.result() == (64, 64)

It keeps all that `taskq.store` asks for in dicts under one lock, and wakes everybody at every change. It is no model of
speed, and other processes cannot reach it.
"""

from __future__ import annotations

from taskq.testing.session import MemoryWorkerSession
from taskq.testing.store import MemoryStore, open_memory
from taskq.testing.subscription import MemorySubscription

__all__ = ["MemoryStore", "MemorySubscription", "MemoryWorkerSession", "open_memory"]

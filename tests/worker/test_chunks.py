"""Chunks of a map: one claimed job for many items, each item with its own fate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from taskq.chunks import pack_values, read_chunk
from taskq.codec import decode, encode
from taskq.envelope import CHUNK, Template
from taskq.job import JobOptions
from taskq.result import Failure
from taskq.retry import Retry
from taskq.states import Reason, State
from taskq.store import Wish
from tests.waiting import eventually
from tests.worker.conftest import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.ledger import Ledger
    from tests.worker.conftest import Running
    from tests.worker.double import StoreDouble

    Serve = Callable[..., Running]


def chunk(
    store: StoreDouble, task: str, items: Iterable[Any], options: JobOptions | None = None, *, star: bool = False
) -> str:
    """Queue a chunk."""
    envelope = Template(CHUNK, f"{SAMPLE}:{task}", options or JobOptions()).pack(encode(list(items)), encode(star))
    return store.put(envelope)


def outcomes(store: StoreDouble, job_id: str, jobs: int) -> list[Any]:
    """Return the values of a chunk, failures in the places of those that failed."""
    verdict = store.last(job_id)
    assert verdict.state is State.SUCCEEDED, verdict
    assert verdict.result is not None
    _, values, records = read_chunk(decode(verdict.result), jobs)
    if values is not None:
        return values
    assert records is not None
    return [entry if isinstance(entry, Failure) else decode(entry) for entry in records]


def test_all_succeed(store: StoreDouble, serve: Serve) -> None:
    """A chunk whose items all succeed is one run, and its value has them all."""
    ids = [chunk(store, "item", range(n, n + 100)) for n in range(0, 1000, 100)]
    assert serve(burst=True).wait() == 0
    for n, job_id in enumerate(ids):
        assert outcomes(store, job_id, 100) == [2 * item for item in range(100 * n, 100 * n + 100)]


def test_empty_chunk(store: StoreDouble, serve: Serve) -> None:
    """A chunk of nothing succeeds, in either way of running it."""
    ids = [chunk(store, "item", []), chunk(store, "item", [], JobOptions(timeout=5.0))]
    assert serve(burst=True).wait() == 0
    assert [outcomes(store, job_id, 0) for job_id in ids] == [[], []]


def test_failures_are_single(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """One item's error is that item's."""
    job_id = chunk(store, "bad_item", [(ledger.path, n) for n in range(5, 10)], star=True)
    assert serve(burst=True).wait() == 0
    found = outcomes(store, job_id, 5)
    assert [entry.message if isinstance(entry, Failure) else entry for entry in found] == [5, 6, "seven", 8, 9]
    assert set(ledger.counts().values()) == {1}


def test_failed_items_are_retried(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """Under a policy the failed item runs again by itself, the others do not."""
    options = JobOptions(retry=Retry(2, delay=0.01))
    job_id = chunk(store, "bad_item", [(ledger.path, n) for n in range(5, 10)], options, star=True)
    assert serve(burst=True).wait() == 0
    found = outcomes(store, job_id, 5)
    assert [entry.message if isinstance(entry, Failure) else entry for entry in found] == [5, 6, "seven", 8, 9]
    assert ledger.counts() == {"5": 1, "6": 1, "7": 3, "8": 1, "9": 1}


def test_deadly_item(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """An item that kills its process fails as crashed after three deaths, and the others have their values."""
    job_id = chunk(store, "bad_item", [(ledger.path, n) for n in range(10, 16)], star=True)
    assert serve(burst=True).wait() == 0
    found = outcomes(store, job_id, 6)
    assert [entry.reason if isinstance(entry, Failure) else entry for entry in found] == [
        10, 11, 12, Reason.CRASHED, 14, 15,
    ]  # fmt: skip
    assert ledger.counts()["13"] == 3
    assert all(count <= 2 for text, count in ledger.counts().items() if text != "13")


def test_items_with_a_timeout(store: StoreDouble, serve: Serve) -> None:
    """A timeout is each item's, and the one that is too long fails alone."""
    job_id = chunk(store, "work", [0.0, 60.0, 0.0], JobOptions(timeout=0.2))
    assert serve(burst=True).wait() == 0
    found = outcomes(store, job_id, 3)
    assert [entry.reason if isinstance(entry, Failure) else entry for entry in found] == [0.0, Reason.TIMEOUT, 0.0]


def test_items_that_may_kill_nothing(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """With max_crashes=1 no item runs twice because of another one's crash."""
    options = JobOptions(max_crashes=1)
    job_id = chunk(store, "bad_item", [(ledger.path, n) for n in range(11, 15)], options, star=True)
    assert serve(burst=True).wait() == 0
    found = outcomes(store, job_id, 4)
    assert [entry.reason if isinstance(entry, Failure) else entry for entry in found] == [11, 12, Reason.CRASHED, 14]
    assert set(ledger.counts().values()) == {1}


def test_unknown_task_of_a_chunk(store: StoreDouble, serve: Serve) -> None:
    """A chunk of an unknown task is left to others as a whole."""
    envelope = Template(CHUNK, "tests.sample_tasks:square", JobOptions()).pack(encode([1, 2]), encode(False))
    timed = Template(CHUNK, "tests.sample_tasks:square", JobOptions(timeout=9)).pack(encode([1, 2]), encode(False))
    ids = [store.put(envelope), store.put(timed)]
    assert serve(burst=True).wait() == 0
    assert all(store.last(job_id).refused for job_id in ids)


def test_hostile_chunk(store: StoreDouble, serve: Serve) -> None:
    """A chunk whose items cannot be read, or that lies about their number, fails, and the worker lives."""
    lie = Template(CHUNK, f"{SAMPLE}:item", JobOptions(timeout=9)).pack(b"\xdd\xff\xff\xff\xff", encode(False))
    junk = Template(CHUNK, f"{SAMPLE}:item", JobOptions()).pack(b"\xc1", encode(False))
    ids = [store.put(lie), store.put(junk)]
    good = chunk(store, "item", [1])
    assert serve(burst=True).wait() == 0
    assert {store.last(job_id).failure.reason for job_id in ids} == {Reason.UNDECODABLE}  # type: ignore[union-attr]
    assert outcomes(store, good, 1) == [2]


def test_cancel_of_a_chunk(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """A chunk that is cancelled ends as cancelled: its running items are killed, the others never begin."""
    gate = str(tmp_path / "gate")
    items = [(ledger.path, gate, str(n)) for n in range(10)]
    job_id = chunk(store, "hold", items, JobOptions(timeout=60), star=True)
    serve()
    eventually(lambda: len(ledger.texts()) == 2, "two items to begin")
    store.wishes = [Wish(job_id=job_id, kill=True)]
    eventually(lambda: store.state(job_id) is State.CANCELLED, "the chunk to end")
    assert len(ledger.texts()) == 2


def test_stop_amid_a_chunk(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """A chunk that is not done at a stop goes back as a whole, its attempt not counted."""
    items = [(ledger.path, str(tmp_path / "gate"), str(n)) for n in range(10)]
    job_id = chunk(store, "hold", items, JobOptions(timeout=60), star=True)
    running = serve(grace=0.1)
    eventually(lambda: len(ledger.texts()) == 2, "two items to begin")
    assert running.stop() == 1
    assert store.state(job_id) is State.QUEUED
    assert store.claims[job_id]["attempt"] == 0


def test_layout_of_a_result() -> None:
    """The worker tells a chunk without failures by the second entry of its result."""
    elapsed, kind, _ = msgpack.unpackb(pack_values(5, [1, 2]))
    assert (elapsed, kind) == (5, 0)

"""Chunks of a map: one claimed job for many items, each item with its own fate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from taskq.chunks import ITEMS_MAX, pack_values, read_chunk
from taskq.codec import decode, encode
from taskq.envelope import CHUNK, Template
from taskq.executors.worker import chunks
from taskq.executors.worker.chunks import ChunkRun
from taskq.failure import Failure
from taskq.options import JobOptions
from taskq.retry import Retry
from taskq.states import Reason, State
from taskq.store import ControlRequest
from tests.waiting import eventually
from tests.worker.conftest import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import pytest

    from taskq.executors.worker.runs import Run
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
    outcome = store.last(job_id)
    assert outcome.state is State.SUCCEEDED, outcome
    assert outcome.result is not None
    _, values, records = read_chunk(decode(outcome.result), jobs)
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
    store.control_requests = [ControlRequest(job_id=job_id, kill=True)]
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


def test_singles_are_made_as_others_end(store: StoreDouble, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items with a time limit are packed one by one, and only a window of them at a time."""
    sizes: list[int] = []
    most = 0
    make, took = ChunkRun.run_of_item, ChunkRun.ended

    def single(chunk: ChunkRun, found: Any) -> Run:
        run = make(chunk, found)
        sizes.append(run.size)
        return run

    def ended(chunk: ChunkRun, run: Run) -> Any:
        nonlocal most
        most = max(most, len(chunk.runs))
        return took(chunk, run)

    monkeypatch.setattr(chunks, "_AHEAD", 20)
    monkeypatch.setattr(ChunkRun, "run_of_item", single)
    monkeypatch.setattr(ChunkRun, "ended", ended)
    job_id = chunk(store, "item", range(300), JobOptions(timeout=60.0))
    assert serve(burst=True).wait() == 0
    assert outcomes(store, job_id, 300) == [2 * item for item in range(300)]
    assert len(sizes) == 300
    assert max(sizes) < 200
    assert most <= 20


def test_retries_of_items_are_made_as_others_end(
    store: StoreDouble, serve: Serve, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items of a whole chunk that are to run again do so through the same window, each at its time."""
    monkeypatch.setattr(chunks, "_AHEAD", 4)
    options = JobOptions(retry=Retry(2, delay=0.01))
    job_id = chunk(store, "bad_item", [(ledger.path, 7) for _ in range(30)], options, star=True)
    assert serve(burst=True).wait() == 0
    assert [entry.message for entry in outcomes(store, job_id, 30)] == ["seven"] * 30
    assert ledger.counts() == {"7": 90}


def test_chunk_of_too_many_items(store: StoreDouble, serve: Serve) -> None:
    """A few bytes that stand for more items than a chunk may have fail, whichever way they are to run."""
    many = b"\xdd" + (ITEMS_MAX + 1).to_bytes(4, "big") + b"\xc0" * (ITEMS_MAX + 1)
    envelopes = [
        Template(CHUNK, f"{SAMPLE}:item", options).pack(many, encode(False))
        for options in (JobOptions(), JobOptions(timeout=9.0))
    ]
    ids = [store.put(envelope) for envelope in envelopes]
    assert serve(burst=True).wait() == 0
    for job_id in ids:
        failure = store.last(job_id).failure
        assert failure is not None
        assert (failure.reason, "above the limit" in failure.message) == (Reason.UNDECODABLE, True)


def test_kill_of_a_long_chunk(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """When a chunk is cancelled, or the worker is forced to stop, none of the items that wait is begun any more."""
    items = [(ledger.path, str(tmp_path / "gate"), str(n)) for n in range(3_000)]
    job_id = chunk(store, "hold", items, JobOptions(timeout=60), star=True)
    running = serve(grace=0.1)
    eventually(lambda: len(ledger.texts()) == 2, "two items to begin")
    assert running.stop() == 1
    assert store.state(job_id) is State.QUEUED
    assert len(ledger.texts()) == 2

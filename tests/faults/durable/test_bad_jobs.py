"""Jobs that no worker should choke on: hostile bytes, unknown tasks, newer envelopes, broken records (17, 18, 20)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgpack

from taskq import Reason, Retry, State
from taskq.connect import open_store
from taskq.errors import DecodeError, UnknownTask
from taskq.options import JobOptions
from taskq.store import NewJob
from tests.faults.durable.fleet import PATIENCE, QUICK, check
from tests.sample_tasks import fail, hold, square
from tests.waiting import eventually
from tests.worker_process import IMPORTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import Job
    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger
    from tests.redis_server import RedisServer

#: Bytes that are no envelope, or one that goes for the throat of whoever reads it.
HOSTILE = {
    "empty": b"",
    "noise": bytes(range(256)) * 4,
    "pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00"
    b"\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
    "huge array": b"\xdd\xff\xff\xff\xff",
    "huge text": b"\x96\x01\x00\xdb\xff\xff\xff\xff",
    "deep": b"\x91" * 100_000 + b"\x00",
    "truncated": msgpack.packb([1, 0, "tests.sample_tasks:square", {}, b"\x91\x03", b"\x80"])[:-4],
    "wrong types": msgpack.packb([1, "call", 7, [], None, {}]),
    "bad arguments": msgpack.packb([1, 0, "tests.sample_tasks:square", b"\x80", b"\xc1\xc1", b"\x80"]),
    "no task": msgpack.packb([1, 0, "", b"\x80", b"\x90", b"\x80"]),
    "dunder": msgpack.packb([1, 0, "tests.sample_tasks:__builtins__", b"\x80", b"\x90", b"\x80"]),
    "another module": msgpack.packb([1, 0, "tests.sample_tasks:os.system", b"\x80", b"\x91\xa4true", b"\x80"]),
}


def put(fleet: Fleet, job_id: str, envelope: bytes, task: str = "tests.sample_tasks:square") -> Job[Any]:
    """Put a job of these bytes into the store, as whoever has access to it could."""
    store = open_store(fleet.url)
    try:
        store.put([NewJob(id=job_id, task=task, envelope=envelope, options=JobOptions())])
    finally:
        store.close()
    return fleet.queue.job(job_id)


def state_of(fleet: Fleet, job: Job[Any]) -> State:
    """Return the state of a job in the store."""
    return fleet.record(job.id).state


def expect_waiting(fleet: Fleet, job: Job[Any]) -> None:
    """Wait until no worker holds a job that none can run: they claim it at times, to see that, and hand it back."""
    eventually(lambda: state_of(fleet, job) in {State.QUEUED, State.SCHEDULED}, "the job to be handed back")


def test_hostile_bytes(fleet: Fleet, ledger: Ledger) -> None:
    """Bytes that are no envelope fail their own job, with the reason; the worker lives, and other jobs run once."""
    worker = fleet.start()
    bad = {name: put(fleet, f"hostile-{number}", data) for number, (name, data) in enumerate(HOSTILE.items())}
    jobs = fleet.submit(ledger, 40, 0.0)
    check(jobs, ledger)
    for name, job in bad.items():
        if name in {"no task", "dunder", "another module"}:
            continue  # these may be handed back for other workers; see below
        error = job.exception(timeout=PATIENCE)
        assert isinstance(error, (DecodeError, UnknownTask)), f"{name}: {error!r}"
        assert job.reason in {Reason.UNDECODABLE, Reason.UNKNOWN_TASK}, name
    for name in ("no task", "dunder", "another module"):
        assert state_of(fleet, bad[name]) is not State.SUCCEEDED, f"{name} was run"
    assert worker.is_running
    assert len(worker.left()) >= 3, "hostile bytes cost a process"
    assert set(ledger.counts().values()) == {1}


def test_unknown_task(fleet: Fleet) -> None:
    """A job whose task this worker does not know is handed back, not failed, and a worker that knows it runs it."""
    worker = fleet.start()
    job = fleet.queue.submit(json.dumps, {"a": 1})
    eventually(lambda: "json:dumps" in worker.log(), "the worker to say that it has no such task")
    assert "--import" in worker.log()
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9
    expect_waiting(fleet, job)
    worker.stop()  # else the two might take turns
    fleet.start(imports=(*IMPORTS, "json"))
    assert job.result(timeout=PATIENCE) == '{"a": 1}'
    assert fleet.record(job.id).attempts == 1


def test_newer_envelope(fleet: Fleet) -> None:
    """An envelope of a newer version is handed back for newer workers; other jobs run."""
    worker = fleet.start()
    newer = put(
        fleet, "from-the-future", msgpack.packb([99, 0, "tests.sample_tasks:square", b"\x80", b"\x91\x03", b"\x80"])
    )
    jobs = [fleet.queue.submit(square, number) for number in range(20)]
    assert [job.result(timeout=PATIENCE) for job in jobs] == [number**2 for number in range(20)]
    expect_waiting(fleet, newer)
    assert worker.is_running
    assert eventually(newer.cancel, "the job to be cancelled")


def test_functions_that_were_not_asked_for(fleet: Fleet) -> None:
    """A worker runs nothing of a module that it was not told to trust, however it is named."""
    fleet.start(imports=("tests.sample_tasks",))
    path = fleet.folder / "proof"
    job = fleet.queue.submit(os.mkdir, str(path))
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9
    expect_waiting(fleet, job)
    assert not path.exists()


def test_retry_storm(fleet: Fleet) -> None:
    """Jobs that all fail at once come back spread over their delay: no second sees more than 5 % of them."""
    fleet.start()
    count, spread = 2_000, 100
    bound = fleet.queue.options(retry=Retry(1, delay=spread, jitter=True))
    jobs = bound.submit_many(fail, [("ValueError", "at once")] * count)
    ids = [job.id for job in jobs]
    eventually(lambda: all(found is not None and found.retries for found in fleet.records(ids)), "all to have failed")
    records = [found for found in fleet.records(ids) if found is not None and found.state is State.SCHEDULED]
    due = [found.due_at for found in records if found.due_at is not None]
    assert len(due) > 0.9 * count, "the others had the shortest waits, and are over"
    seconds = [sum(int(at) == second for at in due) for second in range(int(min(due)), int(max(due)) + 1)]
    assert max(seconds) <= 0.05 * count, seconds
    assert len(seconds) > spread / 2
    for job in jobs:
        job.cancel()


# --- records that somebody broke


def test_broken_hash(make_fleet: Callable[..., Fleet], redis_server: RedisServer, gate: Gate, ledger: Ledger) -> None:
    """A job whose record in Redis is broken is set aside with a reason; the worker lives, and the others run."""
    database = redis_server.fresh_database()
    fleet = make_fleet(redis_server.url(database, QUICK))
    worker = fleet.start(processes=1)
    busy = fleet.queue.submit(hold, gate.path)
    assert eventually(busy.running, "the only process to be busy")
    fleet.queue.pause("default")
    victims = [fleet.queue.submit(square, number) for number in range(4)]
    jobs = fleet.submit(ledger, 10, 0.0)
    with redis_server.client(database) as client:
        keys = [next(key for key in client.keys(f"*{job.id}*") if client.type(key) == b"hash") for job in victims]
        client.hset(keys[0], "data", b"\x00 nothing like it")
        client.hdel(keys[1], "data")
        client.hset(keys[2], "status", "no such status")
        client.delete(keys[3])
        client.set(keys[3], "not even a hash")
    fleet.queue.resume("default")
    gate.open()
    check(jobs, ledger)
    assert busy.result(timeout=PATIENCE) == "held"
    for job in victims[:2]:
        assert job.exception(timeout=PATIENCE) is not None
    assert worker.is_running
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9

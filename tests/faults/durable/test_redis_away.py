"""Redis restarts, goes away, loses its data, or answers nobody, while jobs run (rows 8 to 10, and of rq-engine.md)."""

from __future__ import annotations

import time
from concurrent.futures import wait
from typing import TYPE_CHECKING

import pytest

from taskq import State, TaskQueue
from taskq.errors import BackendUnavailable, JobLost, QueueFull
from tests.faults.durable.fleet import PATIENCE, QUICK, Excuse, check, wait_for_starts
from tests.redis_server import RedisServer, free_port
from tests.sample_tasks import hold, identity, nap, note_item, square
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger

#: Seconds after Redis is back within which work goes on (promise P4), with as much again for a loaded machine.
SOON = 10.0


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet], own_server: RedisServer) -> Fleet:
    """Give a fleet on a redis-server of its own that keeps what it was told."""
    return make_fleet(own_server.url(query=QUICK))


def in_flight(fleet: Fleet, jobs: list) -> Excuse:  # type: ignore[type-arg]
    """Return the excuse of a fault that hits all workers: what has not ended may run again."""
    everyone = frozenset().union(*(fleet.pids(worker) for worker in fleet.workers))
    return Excuse(pids=everyone, open=frozenset(job.id for job in jobs if not fleet.has_ended(job.id)))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart(fleet: Fleet, own_server: RedisServer, ledger: Ledger, how: str) -> None:
    """A restart of Redis in the middle of the work costs no job, and the same workers go on soon after it."""
    workers = [fleet.start(), fleet.start()]
    jobs = fleet.submit(ledger, 250)
    wait_for_starts(ledger, 60)
    excuse = in_flight(fleet, jobs)
    getattr(own_server, how)()
    own_server.start()
    back = time.monotonic()
    assert fleet.queue.options(priority=1).submit(square, 3).result(timeout=PATIENCE) == 9
    assert time.monotonic() - back < SOON
    check(jobs, ledger, [excuse])
    assert all(worker.is_running for worker in workers)


def test_long_absence(fleet: Fleet, own_server: RedisServer, ledger: Ledger, gate: Gate) -> None:
    """While Redis is away for 25 s, running jobs run on; their outcomes wait and are told, and nothing runs twice."""
    worker = fleet.start()
    held = [fleet.queue.submit(hold, gate.path, ledger.path, f"held {number}") for number in range(2)]
    eventually(lambda: len(ledger.texts()) == 2, "both jobs to start")
    own_server.stop()
    gate.open()
    time.sleep(25)  # the fault itself: longer than the lease
    own_server.start()
    back = time.monotonic()
    assert [job.result(timeout=PATIENCE) for job in held] == ["held 0", "held 1"]
    assert time.monotonic() - back < SOON
    assert ledger.counts() == {"held 0": 1, "held 1": 1}
    assert worker.is_running
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_frozen_redis(fleet: Fleet, own_server: RedisServer, ledger: Ledger) -> None:
    """A Redis that answers nobody for longer than the lease costs no job once it goes on."""
    fleet.start()
    fleet.start()
    jobs = fleet.submit(ledger, 150)
    wait_for_starts(ledger, 40)
    excuse = in_flight(fleet, jobs)
    own_server.freeze()
    time.sleep(7)  # the fault itself: two leases
    own_server.thaw()
    check(jobs, ledger, [excuse])


def test_waiting_for_redis_at_the_start(fleet: Fleet, own_server: RedisServer, ledger: Ledger) -> None:
    """A worker that is started while Redis is away says so and ends with the code for that; the jobs wait on."""
    jobs = fleet.submit(ledger, 10)
    own_server.stop()
    worker = fleet.prepare()
    worker.start()
    assert worker.wait() == 3, worker.log()
    assert "cannot be reached" in worker.log()
    own_server.start()
    fleet.start()
    check(jobs, ledger)


@pytest.fixture
def forgetful_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a redis-server that keeps nothing over a restart."""
    with RedisServer(tmp_path / "forgetful") as server:
        yield server


def test_redis_that_forgets(
    make_fleet: Callable[..., Fleet], forgetful_server: RedisServer, ledger: Ledger, gate: Gate
) -> None:
    """Jobs that Redis itself lost are told as lost to who waits for them, without a hang, and new ones run."""
    fleet = make_fleet(forgetful_server.url(query=QUICK))
    worker = fleet.start(processes=1)
    running = fleet.queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    waiting = [fleet.queue.submit(note_item, ledger.path, number) for number in range(50)]
    forgetful_server.restart()
    assert not wait(waiting, PATIENCE).not_done
    for job in waiting:
        assert isinstance(job.exception(), JobLost)
    gate.open()
    error = running.exception(timeout=PATIENCE)
    assert error is None or isinstance(error, JobLost)
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9
    assert worker.is_running
    eventually(lambda: worker.record() is not None, "the worker to sign on again")
    assert ledger.counts()["held"] == 1
    assert len(ledger.texts()) < 10, "jobs that nobody knows any more were run"


def test_unreachable_at_submit() -> None:
    """Without Redis, `submit` says so soon: where it looked, without the password, and what to do."""
    begin = time.monotonic()
    port = free_port()
    with pytest.raises(BackendUnavailable) as raised, TaskQueue(f"redis://user:secret@127.0.0.1:{port}/0") as queue:
        queue.submit(square, 3)
    assert time.monotonic() - begin < SOON
    text = str(raised.value)
    assert "secret" not in text
    assert f"127.0.0.1:{port}" in text
    assert ":" in text.partition(str(port))[2], f"no cure in {text!r}"


def test_client_waits_through_a_restart(fleet: Fleet, own_server: RedisServer, gate: Gate) -> None:
    """A client that waits for a result while Redis restarts gets it; so do a callback and a map."""
    fleet.start()
    called: list[object] = []
    job = fleet.queue.submit(hold, gate.path)
    job.add_done_callback(called.append)
    results = fleet.queue.map(nap, [0.05] * 100)
    assert next(results) == 0.05
    own_server.restart(away=2.0)
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"
    eventually(lambda: called == [job], "the callback to be called")
    assert list(results) == [0.05] * 99


# --- Redis is there, and refuses


def test_read_only(fleet: Fleet, own_server: RedisServer, ledger: Ledger) -> None:
    """When Redis takes no writes for a while, as after a failover, workers wait, and nothing is lost or doubled."""
    workers = [fleet.start(), fleet.start()]
    jobs = fleet.submit(ledger, 150)
    wait_for_starts(ledger, 40)
    excuse = in_flight(fleet, jobs)
    own_server.command("REPLICAOF", "127.0.0.1", free_port())
    with pytest.raises(BackendUnavailable):
        fleet.queue.submit(square, 3)
    time.sleep(2)  # the fault itself
    own_server.command("REPLICAOF", "NO", "ONE")
    check(jobs, ledger, [excuse])
    assert all(worker.is_running for worker in workers)
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_out_of_memory(fleet: Fleet, own_server: RedisServer, ledger: Ledger, gate: Gate) -> None:
    """At `maxmemory`, `submit` raises QueueFull, running jobs end and are told, and work goes on when there is room."""
    worker = fleet.start()
    held = fleet.queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    own_server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(QueueFull, match=r"(?i)memory"):
        fleet.queue.submit(identity, bytes(100_000))
    gate.open()
    assert held.result(timeout=PATIENCE) == "held"
    own_server.command("CONFIG", "SET", "maxmemory", "0")
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9
    assert worker.is_running
    assert fleet.record(held.id).state is State.SUCCEEDED
    assert ledger.counts() == {"held": 1}

"""Children and daemons that are killed: on a real store, with a real `taskq worker`."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from taskq.codec import decode, encode
from taskq.connect import open_store
from taskq.envelope import CALL, Template
from taskq.ids import new_id
from taskq.options import JobOptions
from taskq.states import TERMINAL, Reason, State
from taskq.store import NewJob
from tests import processes
from tests.waiting import eventually
from tests.worker.conftest import SAMPLE
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taskq.store import JobRecord, Store
    from tests.ledger import Ledger

    Start = Callable[..., WorkerProcess]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the URL of a queue file of this test's own."""
    return f"sqlite:///{tmp_path / 'queue.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Give the open queue file."""
    found = open_store(url)
    yield found
    found.close()


@pytest.fixture
def start(url: str, store: Store, tmp_path: Path) -> Iterator[Start]:
    """Start workers; all of them are ended after the test."""
    started: list[WorkerProcess] = []

    def begin(*arguments: str, **settings: Any) -> WorkerProcess:
        worker = WorkerProcess(
            url, tmp_path / "workers", imports=(SAMPLE,), arguments=("--log-format", "json", *arguments), **settings
        )
        started.append(worker)
        worker.start()
        worker.wait_until_ready()
        return worker

    yield begin
    for worker in started:
        worker.close()


def put(store: Store, task: str, *args: Any, **options: Any) -> str:
    """Queue a call; return its id."""
    chosen = JobOptions(**options)
    envelope = Template(CALL, f"{SAMPLE}:{task}", chosen).pack(encode(list(args)), encode({}))
    job = NewJob(id=new_id(), task=f"{SAMPLE}:{task}", envelope=envelope, options=chosen)
    return store.put([job])[0]


def record(store: Store, job_id: str) -> JobRecord:
    """Return what is known of a job."""
    (found,) = store.get([job_id], payload=True)
    assert found is not None
    return found


def ended(store: Store, ids: list[str]) -> bool:
    """Return whether all of these have ended."""
    return all(found is not None and found.state in TERMINAL for found in store.get(ids))


def test_killed_child_costs_one_crash(store: Store, start: Start, ledger: Ledger) -> None:
    """A job that kills its process runs again, and its record tells attempts and crashes."""
    job_id = put(store, "die", ledger.path, 1)
    start()
    eventually(lambda: ended(store, [job_id]), "the job to end")
    found = record(store, job_id)
    assert decode(found.result or b"") == "died"
    assert (found.attempts, found.crashes) == (2, 1)


def test_poison(store: Store, start: Start, ledger: Ledger) -> None:
    """A job that always kills its process fails after three deaths, and does no harm to the others."""
    bad = put(store, "die", ledger.path, 99, "poison")
    good = [put(store, "note_and_return", ledger.path, str(n)) for n in range(300)]
    start()
    eventually(lambda: ended(store, [bad, *good]), "all to end")
    found = record(store, bad)
    assert found.failure is not None
    assert (found.reason, found.crashes, found.attempts) == (Reason.CRASHED, 3, 3)
    assert "SIGKILL" in found.failure.message
    assert ledger.counts()["poison"] == 3
    assert all(ledger.counts()[str(n)] == 1 for n in range(300))


def test_idle_child_killed(store: Store, start: Start, ledger: Ledger) -> None:
    """An idle child that is killed is replaced, and nobody notices."""
    worker = start()
    first = put(store, "note_and_return", ledger.path, "first")
    eventually(lambda: ended(store, [first]), "the first job")
    os.kill(ledger.pids("first")[0], signal.SIGKILL)
    ids = [put(store, "note_and_return", ledger.path, str(n)) for n in range(50)]
    eventually(lambda: ended(store, ids), "the jobs after that")
    assert worker.is_running
    assert all(record(store, job_id).crashes == 0 for job_id in ids)


def test_killed_daemon_takes_its_children_along(store: Store, start: Start, tmp_path: Path, ledger: Ledger) -> None:
    """When the daemon is killed its children die too, and another worker runs its jobs again."""
    gate = str(tmp_path / "gate")
    job_id = put(store, "hold", ledger.path, gate, "held")
    worker = start()
    eventually(lambda: record(store, job_id).progress, "the store to hear that the job has begun")
    worker.kill()
    worker.assert_gone()
    (tmp_path / "gate").touch()
    start()
    eventually(lambda: ended(store, [job_id]), "another worker to run it")
    assert ledger.counts() == {"held": 2}
    assert record(store, job_id).crashes == 1


def test_terminated_daemon_drains(store: Store, start: Start, tmp_path: Path, ledger: Ledger) -> None:
    """SIGTERM: what runs is run to its end, what waits stays, and the exit code is 0."""
    gate = str(tmp_path / "gate")
    ids = [put(store, "hold", ledger.path, gate, str(n)) for n in range(5)]
    worker = start()
    eventually(lambda: len(ledger.texts()) == 2, "two to begin")
    worker.signal(signal.SIGTERM)
    eventually(lambda: "worker_stopping" in worker.log(), "the stop to be heard")
    (tmp_path / "gate").touch()
    assert worker.wait() == 0
    states = [record(store, job_id).state for job_id in ids]
    assert sorted(states) == [State.QUEUED] * 3 + [State.SUCCEEDED] * 2
    assert all(
        record(store, job_id).attempts == (state is State.SUCCEEDED) for job_id, state in zip(ids, states, strict=True)
    )
    worker.assert_gone()
    assert store.workers() == []


def test_two_signals_end_it_at_once(store: Store, start: Start, tmp_path: Path, ledger: Ledger) -> None:
    """A second signal kills what runs; it goes back uncounted, and the exit code is 1."""
    job_id = put(store, "hold", ledger.path, str(tmp_path / "gate"), "held")
    worker = start()
    eventually(ledger.texts, "the job to begin")
    worker.signal(signal.SIGINT)
    eventually(lambda: "worker_stopping" in worker.log(), "the first to be heard")

    def again() -> bool:  # one that comes within half a second is taken for an echo of the first
        worker.signal(signal.SIGINT)
        return "jobs_killed" in worker.log()

    eventually(again, "the second to be heard")
    assert worker.wait() == 1
    found = record(store, job_id)
    assert (found.state, found.attempts, found.crashes) == (State.QUEUED, 0, 0)
    worker.assert_gone()


def test_frozen_daemon(store: Store, start: Start, tmp_path: Path, ledger: Ledger) -> None:
    """A daemon that was frozen for a moment goes on as if nothing had been."""
    gate = str(tmp_path / "gate")
    job_id = put(store, "hold", ledger.path, gate, "held")
    worker = start()
    eventually(ledger.texts, "the job to begin")
    os.kill(worker.pid, signal.SIGSTOP)
    eventually(lambda: processes.is_frozen(worker.pid), "it to freeze")
    (tmp_path / "gate").touch()
    os.kill(worker.pid, signal.SIGCONT)
    eventually(lambda: ended(store, [job_id]), "the job to end")
    assert ledger.counts() == {"held": 1}


def test_log_has_stable_names(store: Store, start: Start) -> None:
    """What an operator searches the log for is there by its name."""
    worker = start(name="tester")
    bad = put(store, "fail", "no such size")
    eventually(lambda: ended(store, [bad]), "the job to end")
    assert worker.stop() == 0
    log = worker.log()
    assert all(f'"event": "{name}"' in log for name in ("worker_started", "job_failed", "worker_stopped"))
    assert bad in log

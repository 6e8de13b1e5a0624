"""How a worker ends: in an orderly way, at the end of the grace, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.options import JobOptions
from taskq.states import State
from tests.waiting import eventually
from tests.worker.conftest import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ledger import Ledger
    from tests.worker.conftest import Running
    from tests.worker.double import StoreDouble

    Serve = Callable[..., Running]


def test_idle_worker_stops_cleanly(store: StoreDouble, serve: Serve) -> None:
    """An idle worker that is told to stop signs off and ends with 0."""
    running = serve()
    eventually(lambda: store.polls, "the worker to be there")
    assert running.stop() == 0
    assert store.left


def test_stop_before_it_began(store: StoreDouble, serve: Serve) -> None:
    """A stop that comes while the processes are starting is heard."""
    assert serve().stop() == 0


def test_running_jobs_get_the_grace(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """At a stop, what runs is run to its end and told; what has not begun goes back, its start not counted."""
    gate = str(tmp_path / "gate")
    ids = [store.call(f"{SAMPLE}:hold", ledger.path, gate, str(n)) for n in range(20)]
    running = serve()
    eventually(lambda: len(ledger.texts()) == 2, "two jobs to begin")
    running.worker.stop()
    eventually(lambda: len(store.held) == 2, "the rest to go back")
    (tmp_path / "gate").touch()
    assert running.wait() == 0
    begun = set(ledger.texts())
    assert len(begun) == 2
    assert [store.state(job_id) for job_id in ids] == [
        State.SUCCEEDED if str(n) in begun else State.QUEUED for n in range(20)
    ]
    assert all(store.claims[job_id]["attempt"] == (str(n) in begun) for n, job_id in enumerate(ids))


def test_short_jobs_at_a_stop(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """A stop amid a flood of short jobs loses none and runs none twice."""
    ids = [store.call(f"{SAMPLE}:note_and_return", ledger.path, str(n)) for n in range(20_000)]
    running = serve()
    eventually(lambda: store.ended() > 1000, "the flood to be under way")
    assert running.stop() == 0
    ended = {str(n) for n, job_id in enumerate(ids) if store.state(job_id) is State.SUCCEEDED}
    assert ended == set(ledger.texts())
    assert set(ledger.counts().values()) == {1}
    assert len(ended) + len(store.waiting) == 20_000
    assert not store.held


def test_grace_runs_out(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """What still runs at the end of the grace is killed and goes back, its attempt not counted; the code says so."""
    options = JobOptions(max_crashes=1)
    job_id = store.call(f"{SAMPLE}:hold", ledger.path, str(tmp_path / "gate"), "held", options=options)
    running = serve(grace=0.2)
    eventually(ledger.texts, "the job to begin")
    assert running.stop() == 1
    assert store.state(job_id) is State.QUEUED
    assert (store.claims[job_id]["attempt"], store.claims[job_id]["crashes"]) == (0, 0)
    assert store.left


def test_second_stop_kills(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """A second stop does not wait for the grace."""
    job_id = store.call(f"{SAMPLE}:hold", ledger.path, str(tmp_path / "gate"), "held")
    running = serve()
    eventually(ledger.texts, "the job to begin")
    running.worker.stop()
    assert running.stop() == 1
    assert store.state(job_id) is State.QUEUED
    assert store.claims[job_id]["attempt"] == 0


def test_crash_before_a_stop_counts(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """A job that was given back keeps the crashes that it had here, and the attempts that ended in them."""
    job_id = store.call(f"{SAMPLE}:die_then_hold", ledger.path, str(tmp_path / "gate"))
    running = serve(grace=0.1)
    eventually(lambda: "held" in ledger.texts(), "the second run to begin")
    assert running.stop() == 1
    assert store.state(job_id) is State.QUEUED
    assert (store.claims[job_id]["attempt"], store.claims[job_id]["crashes"]) == (1, 1)


def test_stop_while_the_store_is_away(store: StoreDouble, serve: Serve) -> None:
    """A worker whose store does not come back ends after the grace all the same, and the code says so."""
    running = serve(grace=0.3)
    eventually(lambda: store.polls, "the worker to be there")
    store.away = True
    assert running.stop() == 3

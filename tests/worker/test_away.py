"""A store that goes away and comes back, and jobs that others have had meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def test_outcomes_wait_for_the_store(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """While the store is away, children run on; what they did is told when it is back, and work goes on."""
    gate = str(tmp_path / "gate")
    first = [store.call(f"{SAMPLE}:hold", ledger.path, gate, str(n)) for n in range(2)]
    running = serve()
    eventually(lambda: len(ledger.texts()) == 2, "both to begin")
    store.away = True
    (tmp_path / "gate").touch()
    later = store.call(f"{SAMPLE}:quiet", 9)
    loop = running.worker.loop
    eventually(lambda: loop is not None and len(loop.session.pending) == 2, "the outcomes to wait")
    assert store.ended() == 0
    store.away = False
    eventually(lambda: store.ended() == 3, "all to be told")
    assert [store.value(job_id) for job_id in first] == ["0", "1"]
    assert store.value(later) == 9
    assert ledger.counts() == {"0": 1, "1": 1}


def test_nothing_is_claimed_while_away(store: StoreDouble, serve: Serve) -> None:
    """What waits in memory is bounded: without the store no work is taken."""
    for n in range(3000):
        store.call(f"{SAMPLE}:quiet", n)
    running = serve(burst=True)
    eventually(lambda: store.ended() > 500, "work to be under way")
    store.away = True
    loop = running.worker.loop
    assert loop is not None
    eventually(lambda: not loop.claims.held, "all that was taken to end")
    assert store.ended() + len(loop.session.pending) + len(store.waiting) == 3000
    store.away = False
    assert running.wait() == 0
    assert store.ended() == 3000


def test_lost_jobs_are_ended(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """A job that another worker has by now is killed here, and nothing is said of it."""
    job_id = store.call(f"{SAMPLE}:hold", ledger.path, str(tmp_path / "gate"), "held")
    running = serve()
    eventually(ledger.texts, "the job to begin")
    store.lost = [job_id]
    eventually(lambda: not running.worker.loop.claims.held, "the job to be given up")  # type: ignore[union-attr]
    assert running.stop() == 0
    assert job_id not in store.outcomes


def test_late_outcome_is_fenced(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """An outcome that comes too late changes nothing, and the worker lives on."""
    gate = str(tmp_path / "gate")
    job_id = store.call(f"{SAMPLE}:hold", ledger.path, gate, "held")
    serve()
    eventually(ledger.texts, "the job to begin")
    store.held[job_id] = "somebody else's token"
    (tmp_path / "gate").touch()
    after = store.call(f"{SAMPLE}:quiet", 1)
    eventually(lambda: store.ended() == 1, "the next job to end")
    assert store.value(after) == 1
    assert store.state(job_id) is State.RUNNING

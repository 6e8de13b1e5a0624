"""What clients put into a queue file, read from it and change in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskq.executors.sqlite import jobs as sqlite_jobs
from taskq.executors.sqlite.schema import INLINE
from taskq.states import State
from tests.store_steps import job, said, see, state_of, take, tell
from tests.waiting import eventually

if TYPE_CHECKING:
    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import WorkerSession


@pytest.mark.parametrize("size", [0, INLINE, INLINE + 1, 1_000_000])
def test_envelopes_of_any_size(store: SQLiteStore, member: WorkerSession, size: int) -> None:
    """An envelope comes back whole, in the row or beside it, and goes when its job is removed."""
    store.put([job("a", envelope=b"e" * size)])
    assert see(store, "a").envelope == b"e" * size
    (claim,) = take(member)
    assert claim.envelope == b"e" * size
    tell(member, said(claim))
    assert store.remove(["a"]) == [True]
    assert store.database.read(lambda c: c.execute("SELECT count(*) FROM blobs").fetchone()[0]) == 0


def test_label_with_half_a_surrogate(store: SQLiteStore) -> None:
    """A label that holds a file's undecodable name is kept in a readable form."""
    import dataclasses  # noqa: PLC0415 - only here

    store.put([dataclasses.replace(job("a"), label="open('\udcff')")])
    assert see(store, "a").label == r"open('\udcff')"


def test_list_when_a_state_is_common(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list reads from the newest on where a state has many jobs: the same jobs as by the index."""
    store.put([job(f"a{number}") for number in range(5)])
    wanted = store.list(states={State.QUEUED})
    monkeypatch.setattr("taskq.executors.sqlite.queries.FEW", 2)
    assert store.list(states={State.QUEUED}) == wanted


# --- cancel, retry, remove


def test_cancel_what_runs(store: SQLiteStore, member: WorkerSession) -> None:
    """A running job's worker is told once, and again only when the job shall be killed; a late success stands."""
    store.put([job("a"), job("b")])
    first, second = take(member)
    assert store.cancel(["a", "b"]) == [State.RUNNING, State.RUNNING]
    control_requests = member.poll([], [], 0).control_requests
    assert {(request.job_id, request.kill) for request in control_requests} == {("a", False), ("b", False)}
    assert member.poll([], [], 1).control_requests == []
    store.cancel(["a"], kill=True)
    assert [(request.job_id, request.kill) for request in member.poll([], [], 0).control_requests] == [("a", True)]
    tell(member, said(first, State.CANCELLED), said(second))
    assert (state_of(store, "a"), state_of(store, "b")) == (State.CANCELLED, State.SUCCEEDED)
    assert store.database.read(lambda c: c.execute("SELECT count(*) FROM wishes").fetchone()[0]) == 0


# --- needs


# --- forgetting


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the rows of jobs with `result_ttl=0` deleted by the next sweep."""
    monkeypatch.setattr(sqlite_jobs, "GRACE", 0.0)


def count_rows(store: SQLiteStore) -> int:
    """Return how many jobs have rows."""
    return int(store.database.read(lambda c: c.execute("SELECT count(*) FROM jobs").fetchone()[0]))


def test_result_ttl(store: SQLiteStore, member: WorkerSession, no_grace: None) -> None:
    """An ended job is forgotten after its `result_ttl`, by a sweep; others stay."""
    store.put([job("a", result_ttl=0.05), job("b"), job("c", result_ttl=60.0)])
    tell(member, *map(said, take(member)))
    eventually(lambda: store.get(["a"]) == [None], "the job to be forgotten")
    member.run_maintenance()
    assert count_rows(store) == 2
    assert store.get(["b", "c"]) != [None, None]


def test_needed_jobs_stay(store: SQLiteStore, member: WorkerSession, no_grace: None) -> None:
    """A job whose result another one still needs is not deleted before that has ended."""
    store.put([job("a", result_ttl=0), job("slow", priority=-1)])
    store.put([job("b", depends_on=["a", "slow"])])
    tell(member, *map(said, take(member, 1)))
    member.run_maintenance()
    tell(member, *map(said, take(member)))
    (claim,) = take(member)
    assert claim.results == {"a": b"a", "slow": b"slow"}


def test_outcomes_forget_too(store: SQLiteStore, member: WorkerSession, no_grace: None) -> None:
    """While jobs end, old ones are forgotten at least as fast, without a sweep."""
    store.put([job(f"a{number}", result_ttl=0) for number in range(20)])
    for _ in range(10):
        tell(member, *map(said, take(member, 2)))
    assert count_rows(store) <= 4


# --- queues


def test_resend_is_not_rejected(store: SQLiteStore) -> None:
    """A job that is put again under an id of its own making is no second one, even where taken ids are rejected."""
    new = job("c", key="c", if_exists="reject")
    assert store.put([new]) == store.put([new]) == ["c"]  # a resend of its own id is none of that

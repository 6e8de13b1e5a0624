"""Jobs that a worker has refused and leaves to others: it passes over thousands of them at the cost of few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.refusals import Refuser
from taskq.failure import Failure
from taskq.states import State
from tests.store_steps import job, said, take, tell
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import WorkerSession

MANY = 3000


def refuse_all(store: SQLiteStore, member: WorkerSession, count: int, **options: Any) -> None:
    """Put jobs and have the worker refuse all of them."""
    store.put([job(f"left{number}", **options) for number in range(count)])
    claims = take(member, count)
    assert len(claims) == count
    no_task = {"refused": True, "failure": Failure.lost()}
    tell(member, *[said(claim, State.QUEUED, **no_task) for claim in claims])


def steps(store: SQLiteStore, member: WorkerSession, want: int = 1) -> tuple[int, list[str]]:
    """Claim; return how many hundreds of steps SQLite took for it, and what was claimed."""
    writer = store.database.connections.get().writer
    counted: list[int] = []
    writer.set_progress_handler(lambda: counted.append(1), 100)
    claims = take(member, want)
    writer.set_progress_handler(None, 0)
    return len(counted), [claim.id for claim in claims]


def test_thousands_are_looked_at_once(
    store: SQLiteStore, join: Callable[..., WorkerSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind thousands of refused jobs each claim finds the next good one, and looks at them only now and then."""
    monkeypatch.setattr("taskq.executors.sqlite.refusals.SHARE", 1e-6)  # not again within this test
    member, other = join("w1"), join("w2")
    refuse_all(store, member, MANY)
    store.put([job(f"good{number}") for number in range(5)])
    first, found = steps(store, member)
    assert found == ["good0"]
    later = [steps(store, member) for _ in range(4)]
    assert [ids for _, ids in later] == [["good1"], ["good2"], ["good3"], ["good4"]]
    assert max(count for count, _ in later) * 10 < first
    assert [claim.id for claim in take(other, 2)] == ["left0", "left1"]


def test_higher_and_lower_priorities_behind_them(
    store: SQLiteStore, join: Callable[..., WorkerSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that come later in any priority, above, beside and below the refused ones, are found at once, in order."""
    monkeypatch.setattr("taskq.executors.sqlite.refusals.WORTH_S", 0.0)
    monkeypatch.setattr("taskq.executors.sqlite.refusals.SHARE", 1e-6)
    member = join("w1")
    join("w2")
    refuse_all(store, member, 50, priority=2)
    assert take(member, 1) == []
    for number, priority in enumerate((-1, 2, 5, 0, 3)):
        store.put([job(f"good{number}", priority=priority)])
    assert [claim.id for claim in take(member, 10)] == ["good2", "good4", "good1", "good3", "good0"]


def test_one_that_comes_back_before_them(
    store: SQLiteStore, join: Callable[..., WorkerSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that returns to its old place, before those passed over, is found when the front is looked at again."""
    monkeypatch.setattr("taskq.executors.sqlite.refusals.WORTH_S", 0.0)
    member = join("w1")
    join("w2")
    store.put([job("first")])
    (claim,) = take(member, 1)
    refuse_all(store, member, 50)
    assert take(member, 1) == []
    tell(member, said(claim, State.QUEUED))
    eventually(lambda: [one.id for one in take(member, 1)] == ["first"], "the job at its old place")


def test_a_worker_that_leaves(
    store: SQLiteStore, join: Callable[..., WorkerSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the other worker leaves, what was left to it is looked at again, at once."""
    monkeypatch.setattr("taskq.executors.sqlite.refusals.WORTH_S", 0.0)
    monkeypatch.setattr("taskq.executors.sqlite.refusals.SHARE", 1e-6)
    member, other = join("w1"), join("w2")
    refuse_all(store, member, 50)
    assert take(member, 1) == []
    other.leave()
    assert [claim.id for claim in take(member, 1)] == ["left0"]


def test_parts_leave_nothing_out() -> None:
    """The parts of a queue are all of it but for the jobs that were passed over."""
    refuser = Refuser("w")
    refuser._passed["q"] = {-3: 7, 0: 9}  # noqa: SLF001  # as if it had passed over these
    refuser._anew_at["q"] = float("inf")  # noqa: SLF001  # as if time had passed
    found = [part for part, _ in refuser.parts("q")]
    assert found == [
        " AND rank < ?",
        " AND rank = ? AND n > ?",
        " AND rank > ? AND rank < ?",
        " AND rank = ? AND n > ?",
        " AND rank > ?",
    ]
    refuser._anew_at["q"] = 0.0  # noqa: SLF001  # as if time had passed
    assert refuser.parts("q") == [("", ())]

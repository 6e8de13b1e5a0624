"""Garbage in every column of a queue file: one bad row is one bad row, and the good job behind it runs.

Columns are those that the file itself names: a new one is attacked by being there.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from taskq.failure import Failure
from taskq.states import State
from tests.fuzz.amounts import counts
from tests.fuzz.sqlite.rows import Rows, filled
from tests.store_steps import job, said, state_of, take, tell, worker
from tests.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import Claim, Ended, JobOutcome, WorkerSession
    from tests.fuzz.garbage import Garbage

#: Values of one batch; then a good job is put behind them, and has to run.
BATCH = 250


def ways(claim: Claim) -> list[JobOutcome]:
    """Return what a worker may say of a job, those first that end it."""
    failure = Failure.from_exception(ValueError("no good"))
    return [
        said(claim),
        said(claim, State.FAILED, failure=failure, log=b"x", meta=b"\x80", progress=(1, None)),
        said(claim, State.SCHEDULED, failure=failure, delay=0.0),
        said(claim, State.QUEUED, started=False),
        said(claim, State.QUEUED, failure=failure, refused=True),
    ]


def work_off(members: list[WorkerSession], garbage: Garbage, wanted: str) -> None:
    """Claim and tell until the wanted job has come: some go back a few times, those that crashed come one by one."""
    for turn in range(2 * BATCH):
        for member in members:
            claims = take(member, 50)
            among = 5 if turn < 5 else 2  # in the end each has to end
            bad = [garbage.random.choice(ways(claim)[:among]) for claim in claims if claim.id != wanted]
            tell(member, *bad)
            good = [claim for claim in claims if claim.id == wanted]
            if good:
                assert tell(member, said(good[0])) == []
                return
    raise AssertionError("the good job was not reached")


def look_around(store: SQLiteStore, ids: list[str]) -> None:
    """Do all that clients and commands do to jobs."""
    store.get(ids, payload=True)
    for state in State:
        store.list(states=[state], limit=50)
    store.list(queue="default", task="tests:nothing")
    store.queues(), store.workers(), store.doctor(), store.some_queues(3)
    for one in ids[:6]:
        store.log(one)
    store.cancel(ids[:12], kill=True)
    store.retry(ids[12:24])
    store.remove(ids[24:])


def hear_out(subscription: Subscriber) -> list[Ended]:
    """Return all that a subscription has to tell within a moment."""
    return [one for _ in range(5) for one in subscription.wait(0.0)]


@counts(6_000, 250_000)
def test_columns(
    store: SQLiteStore, path: Path, join: Callable[..., WorkerSession], garbage: Garbage, total: int
) -> None:
    """Garbage in a row costs what the row is about at most: workers and all that reads go on."""
    members = [join("first"), join("second")]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = Rows(connection, garbage, but={"inbox"})
        while garbage.count < total:
            subscription = Subscriber(store.subscribe())
            ids, held = filled(store, *members, garbage.count)
            subscription.expect(ids)
            for _ in range(BATCH):
                rows.spoil()
            good = f"good{garbage.count}"
            store.put([job(good)], reply_to=subscription.reply_to)
            subscription.expect([good])
            subscription.wait(0.0)
            for member, name in zip(members, ("first", "second"), strict=True):
                member.remains(), member.run_maintenance()
                member.heartbeat(worker(name), [])
                tell(member, *(said(claim) for claim in held))
            work_off(members, garbage, good)
            assert state_of(store, good) is State.SUCCEEDED
            assert good in {one.id for one in hear_out(subscription)}
            look_around(store, ids)
            subscription.close()
            rows.clear()

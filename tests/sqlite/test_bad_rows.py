"""Damaged rows of a queue file: each costs its own job, and no other one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from taskq.states import Reason, State
from tests.store_steps import hear, job, said, see, state_of, take, tell
from tests.subscriber import Subscriber

if TYPE_CHECKING:
    from pathlib import Path

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import WorkerSession

#: What a row may hold after damage: the column, and a value that is none of its kind.
DAMAGE = (
    *(("state", 77), ("rank", "x"), ("fence", "x"), ("attempts", "x"), ("crashes", "x"), ("retries", b"\xff")),
    *(("submitted", "x"), ("due", "x"), ("expires", b"x"), ("ttl", "x"), ("ear", "x"), ("ear", 1 << 40)),
    *(("refused", "x"), ("max_crashes", "x"), ("drop_at", "x"), ("label", b"\xff"), ("worker", b"\xff")),
    *(("needs", b"\x00"), ("meta", 7), ("failure", b"\xc1"), ("envelope", 5), ("envelope", None), ("result", 5)),
    *(("done", "x"), ("started", "x")),
)


def damage(path: Path, column: str, value: object) -> None:
    """Write into the row of the job named "bad"."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = 'bad'", (value,))  # noqa: S608  # ours


@pytest.mark.parametrize(("column", "value"), DAMAGE)
def test_damage_before_a_claim(
    store: SQLiteStore, path: Path, member: WorkerSession, column: str, value: object
) -> None:
    """Jobs beside a damaged row are claimed, run, read, listed and heard of; the damaged one is read as something."""
    subscription = Subscriber(store.subscribe())
    store.put([job(name) for name in ("before", "bad", "after")], reply_to=subscription.reply_to)
    subscription.expect(["before", "after"])
    damage(path, column, value)
    claimed: set[str] = set()
    for _ in range(3):  # what has crashed as often as it may runs alone, and what is behind it comes later
        claims = take(member)
        claimed |= {claim.id for claim in claims}
        tell(member, *map(said, claims))
    assert {"before", "after"} <= claimed
    assert {one.state for one in hear(subscription, 2).values()} == {State.SUCCEEDED}
    member.run_maintenance()
    assert state_of(store, "before") is state_of(store, "after") is State.SUCCEEDED
    assert {"before", "after"} <= {record.id for record in store.list()}
    store.get(["bad"], payload=True)
    assert store.queues()
    subscription.close()


@pytest.mark.parametrize(("column", "value"), [("envelope", 5), ("envelope", None), ("fence", "x"), ("meta", 7)])
def test_what_cannot_be_run(store: SQLiteStore, path: Path, member: WorkerSession, column: str, value: object) -> None:
    """A job whose row cannot be run has failed as one that cannot be read."""
    store.put([job("bad"), job("other")])
    damage(path, column, value)
    assert [claim.id for claim in take(member)] == ["other"]
    assert see(store, "bad").state is State.FAILED
    assert see(store, "bad").reason is Reason.UNDECODABLE


@pytest.mark.parametrize(("column", "value"), [("result", 5), ("failure", b"\xc1"), ("attempts", "x"), ("state", 77)])
def test_damage_after_the_end(
    store: SQLiteStore, path: Path, member: WorkerSession, column: str, value: object
) -> None:
    """Whoever waits for a job whose row is damaged hears of an end, and of all others."""
    subscription = Subscriber(store.subscribe())
    store.put([job("bad"), job("good")])
    claims = take(member)
    tell(member, *(said(claim, State.FAILED) for claim in claims))
    damage(path, column, value)
    subscription.expect(["bad", "good"])
    assert hear(subscription, 2).keys() == {"bad", "good"}
    subscription.close()

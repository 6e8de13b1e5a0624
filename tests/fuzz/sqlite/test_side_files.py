"""Garbage in the files beside a queue file: what was kept before is still there, and the good job behind it runs."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.errors import BackendUnavailable, StoreDamaged
from taskq.executors.sqlite.append_log import HEADER, RECORD
from taskq.executors.sqlite.schema import row_of
from taskq.states import State
from tests.fuzz.amounts import counts
from tests.store_steps import job, said, state_of, take, tell, worker
from tests.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import WorkerSession
    from tests.fuzz.garbage import Garbage

#: Garbage of one kind before a good job is put behind it.
BATCH = 5

#: Calls in which each piece of garbage may be said before all goes on.
TRIES = 3


def insist(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call gives, which may say in words a few times that a file is damaged."""
    for _ in range(TRIES):
        with suppress(BackendUnavailable, StoreDamaged):
            return call(*arguments)
    return call(*arguments)


def runs(store: SQLiteStore, member: WorkerSession, name: str) -> None:
    """Put a job, and see it claimed and ended."""
    insist(store.put, [job(name)])
    done: set[str] = set()
    for _ in range(20):
        claims = insist(take, member)
        insist(tell, member, *map(said, claims))
        done |= {claim.id for claim in claims}
        if name in done:
            break
    assert insist(state_of, store, name) is State.SUCCEEDED


def overwrite(path: Path, garbage: Garbage, most: int) -> None:
    """Write garbage into the middle of a file."""
    with path.open("r+b") as file:
        file.seek(garbage.random.randrange(min(most, max(1, path.stat().st_size))))
        file.write(garbage.text()[:64])


@counts(1_000, 40_000)
def test_lock(open_store: Callable[[], SQLiteStore], path: Path, garbage: Garbage, total: int) -> None:
    """Garbage on the shared page loses no job, neither one from before nor one from behind it."""
    store, other = open_store(), open_store()
    members = [store.join(worker("first")), other.join(worker("second"))]
    while garbage.count < total:
        kept = f"kept{garbage.count}"
        insist(store.put, [job(kept)])
        for _ in range(garbage.random.randrange(1, BATCH)):
            overwrite(path.with_name("queue.db-lock"), garbage, 4096)
        late = f"late{garbage.count}"
        insist(other.put, [job(late)])
        runs(store, members[garbage.count % 2], f"good{garbage.count}")
        for member in members:
            insist(member.run_maintenance)
            insist(member.wait, 0.0, -1)
        assert {insist(state_of, other, name) for name in (kept, late)} <= {State.SUCCEEDED, State.QUEUED}
    for member in members:
        insist(member.leave)


def forge(path: Path, garbage: Garbage) -> None:
    """Write a record into the inbox that is whole, and has garbage in it."""
    data = path.read_bytes()
    at, chain = HEADER.size, crc32(data[: HEADER.size])
    while at + RECORD.size < len(data):
        length, check = RECORD.unpack_from(data, at)
        if not length or crc32(data[at + RECORD.size : at + RECORD.size + length], chain) != check:
            break
        at, chain = at + RECORD.size + length, check
    row = list(row_of(job(f"forged{garbage.count}"), 0, 0.0))
    row[garbage.random.randrange(len(row))] = garbage.value()
    payload = garbage.text() if garbage.random.random() < 0.5 else msgpack.packb(row)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(RECORD.pack(len(payload), crc32(payload, chain)) + payload)


@counts(1_500, 60_000)
def test_inbox(open_store: Callable[..., SQLiteStore], path: Path, url: str, garbage: Garbage, total: int) -> None:
    """Garbage in the inbox costs the jobs whose records it hits, and none that is in the tables."""
    store = open_store()
    member = store.join(worker("first"))
    inbox = path.with_name("queue.db-inbox")
    while garbage.count < total:
        names = [f"job{garbage.count}-{n}" for n in range(6)]
        for name in names[:3]:
            insist(store.put, [job(name)])
        assert all(insist(store.get, names[:3]))
        for name in names[3:]:
            insist(store.put, [job(name)])
        for _ in range(garbage.random.randrange(1, BATCH)):
            how = garbage.random.randrange(4)
            if how == 0:
                garbage.count += 1
                os.truncate(inbox, garbage.random.randrange(inbox.stat().st_size + 1))
            elif how == 1:
                overwrite(inbox, garbage, HEADER.size)
            elif how == 2:
                forge(inbox, garbage)
            else:
                overwrite(inbox, garbage, 20_000)
        if garbage.random.random() < 0.2:
            insist(open_store, url).close()
        assert all(insist(store.get, names[:3]))
        runs(store, member, f"good{garbage.count}")
        assert all(insist(store.get, names[:3]))
    insist(member.leave)


def litter(folder: Path, garbage: Garbage) -> None:
    """Put a file of some kind where a FIFO may be wanted, or take one away."""
    pick = garbage.random
    garbage.count += 1
    place = (
        folder / f"{pick.choice(('worker', 'ear'))}-{pick.choice(('0', '1', '2', '3', '-1', 'x', '2047', '0-new-1'))}"
    )
    how = pick.randrange(7)
    if how == 0:
        shutil.rmtree(folder)
        return
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif place.is_socket() or place.is_symlink() or place.exists():
        place.unlink()
    if how == 1:
        place.write_bytes(garbage.text()[:100])
    elif how == 2:
        place.mkdir()
    elif how == 3:
        place.symlink_to(pick.choice(("/etc/passwd", "nowhere", ".", str(place))))
    elif how == 4:
        os.mkfifo(place, 0o600)
    elif how == 5:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(place))


@counts(500, 20_000)
def test_wake(open_store: Callable[..., SQLiteStore], path: Path, garbage: Garbage, total: int) -> None:
    """Anything among the FIFOs costs a wake-up at most."""
    store = open_store()
    members = [store.join(worker("first")), store.join(worker("second"))]
    folder = path.with_name("queue.db-wake")
    while garbage.count < total:
        subscription = Subscriber(insist(store.subscribe))
        for _ in range(garbage.random.randrange(1, BATCH)):
            folder.mkdir(mode=0o700, exist_ok=True)
            litter(folder, garbage)
        for member in members:
            insist(member.wait, 0.0, -1)
            insist(member.run_maintenance)
            insist(member.heartbeat, worker("first" if member is members[0] else "second"), [])
        good = f"good{garbage.count}"
        insist(partial(store.put, reply_to=subscription.reply_to), [job(good)])
        subscription.expect([good])
        runs(store, members[garbage.count % 2], f"next{garbage.count}")
        assert good in {one.id for one in subscription.wait(0.0)}
        store.workers(), store.doctor()
        subscription.close()
    for member in members:
        insist(member.leave)

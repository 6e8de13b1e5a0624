"""Files of a queue that are deleted, renamed, replaced or cut under programs that use them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable, StoreDamaged
from taskq.executors.sqlite import subscription as sqlite_subscription
from taskq.executors.sqlite.disk_space import DiskSpace
from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import Reason, State
from tests.store_steps import hear, job, said, state_of, take, tell, worker
from tests.subscriber import Subscriber
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk have room, whatever it has: else nothing would go through the append log."""
    monkeypatch.setattr(DiskSpace, "check", lambda *_: False)


def delete(path: Path) -> None:
    """Delete a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def rename(path: Path) -> None:
    """Give a file another name."""
    path.rename(f"{path}.away")


def replace(path: Path) -> None:
    """Put an empty file in the place of another, as by rename."""
    fresh = path.with_name("fresh")
    fresh.touch(mode=0o600)
    fresh.replace(path)


def cut(path: Path) -> None:
    """Take all out of a file."""
    os.truncate(path, 0)


def settle(store: SQLiteStore) -> None:
    """Have a store trust what it has seen of its folder: from then on it looks at no file while that is as it was."""
    identities = store.database.connections.get().identities
    eventually(lambda: identities.in_place() and identities.is_settled, "the folder has settled")


@pytest.mark.parametrize("act", [delete, rename, replace, cut])
@pytest.mark.parametrize("ending", ["-inbox", "-lock"])
def test_later_puts_are_kept(
    ending: str, act: Callable[[Path], None], path: Path, open_store: Callable[[], SQLiteStore]
) -> None:
    """What any program puts after a file beside the queue was removed is there for all; what was put before too."""
    stores = [open_store() for _ in range(2)]
    for store in stores:
        settle(store)
    before = [store.put([job(f"before-{n}")])[0] for n, store in enumerate(stores)]
    for store in stores:
        assert store.get(before)  # what nobody had brought into the tables would be lost with a cut inbox
    act(path.with_name(path.name + ending))
    after = [stores[n % len(stores)].put([job(f"after-{n}")])[0] for n in range(12)]
    stranger = open_store()
    assert None not in stranger.get(before + after)
    after += stranger.put([job("stranger")]) + stores[0].put([job("last")])
    assert None not in stores[-1].get(before + after)


@pytest.mark.parametrize("ending", ["-inbox", "-wal"])
def test_deleted_with_jobs_in_it(ending: str, path: Path, store: SQLiteStore) -> None:
    """Jobs that only a deleted inbox or log has are brought in by the program that has it open."""
    settle(store)
    ids = [store.put([job(f"j{n}")])[0] for n in range(5)]
    if ending == "-wal":
        store.list()  # brings them from the append log into the log
    path.with_name(path.name + ending).unlink()
    store.put([job("later")])
    store.close()
    again = SQLiteStore(store.url)
    assert None not in again.get([*ids, "later"])
    again.close()


def test_cut_inbox_with_jobs_in_it(path: Path, store: SQLiteStore) -> None:
    """Jobs that were cut away are said to be gone, once; then the queue goes on."""
    store.put([job("a")])
    store.list()
    store.put([job("b")])
    cut(path.with_name("queue.db-inbox"))
    with pytest.raises(StoreDamaged, match="its inbox was cut"):
        store.put([job("c")])
    store.put([job("d")])
    assert [record.id for record in store.list()] == ["d", "a"]


@pytest.mark.parametrize("act", [delete, rename])
def test_file_gone(act: Callable[[Path], None], path: Path, store: SQLiteStore, join: Callable[..., Any]) -> None:
    """With the queue file away all calls say so, and make no new one; when it is back all goes on."""
    settle(store)
    member = join()
    store.put([job("a")])
    (claim,) = take(member)
    for one in path.parent.glob("queue.db*"):
        one.rename(path.parent / f"kept-{one.name}")
    for call in (lambda: store.put([job("b")]), lambda: store.get(["a"]), lambda: take(member), store.list):
        with pytest.raises(BackendUnavailable, match="the queue file is gone"):
            call()  # type: ignore[no-untyped-call,unused-ignore]
    assert not path.exists()
    for one in path.parent.glob("kept-*"):
        one.rename(path.parent / one.name.removeprefix("kept-"))
    assert tell(member, said(claim)) == []
    assert state_of(store, "a") is State.SUCCEEDED
    if act is delete:
        shutil.rmtree(path.parent)
        with pytest.raises(BackendUnavailable, match="the queue file is gone"):
            store.put([job("c")])
        path.parent.mkdir(mode=0o700)
        SQLiteStore(store.url).close()


def test_another_file(path: Path, store: SQLiteStore, open_store: Callable[[], SQLiteStore]) -> None:
    """A worker and a client go on in the file that has taken the place of theirs; the old one's jobs are lost."""
    settle(store)
    member = store.join(worker())
    subscription = Subscriber(store.subscribe())
    store.put([job("old")], reply_to=subscription.reply_to)
    subscription.expect(["old"])
    (claim,) = take(member)
    for one in path.parent.glob("queue.db*"):
        delete(one)
    other = open_store()
    other.put([job("new")])
    assert hear(subscription, 1)["old"].failure.reason is Reason.LOST
    member.wait(5.0, -1)
    (fresh,) = take(member)
    assert fresh.id == "new"
    assert [one.name for one in other.workers()] == ["w"]
    assert tell(member, said(claim), said(fresh)) == ["old"]
    ids = store.put([job("mine")], reply_to=subscription.reply_to)
    subscription.expect(ids)
    tell(member, said(*take(member)))
    assert hear(subscription, 1)["mine"].state is State.SUCCEEDED
    member.leave()


def test_waiting_when_the_file_goes(path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for jobs of a file that stays away is told that they are lost, and why."""
    monkeypatch.setattr(sqlite_subscription, "GONE_S", 0.1)
    monkeypatch.setattr(sqlite_subscription, "LOOK_S", 0.05)
    subscription = Subscriber(store.subscribe())
    store.put([job("a")], reply_to=subscription.reply_to)
    subscription.expect(["a"])
    shutil.rmtree(path.parent)
    failure = hear(subscription, 1)["a"].failure
    assert failure is not None
    assert (failure.reason, "the queue file is gone" in failure.message) == (Reason.LOST, True)


def test_deleted_fifos(path: Path, store: SQLiteStore, open_store: Callable[[], SQLiteStore]) -> None:
    """After -wake was deleted two workers keep places of their own and what they run; clients are rung again."""
    first = store.join(worker("first"))
    subscription = Subscriber(store.subscribe())
    store.put([job("a")], reply_to=subscription.reply_to)
    subscription.expect(["a"])
    (claim,) = take(first)
    shutil.rmtree(path.with_name("queue.db-wake"))
    other = open_store()
    second = other.join(worker("second"))
    assert second.run_maintenance() == 0
    assert {one.name for one in other.workers()} == {"first", "second"}
    assert first.heartbeat(worker("first"), [(claim.id, claim.token)]) == []
    assert first.slot != second.slot
    assert tell(first, said(claim)) == []
    assert hear(subscription, 1)["a"].state is State.SUCCEEDED
    assert subscription.subscription.fifo.is_there()
    first.leave()
    second.leave()


def test_many_descriptors(path: Path, store: SQLiteStore) -> None:
    """However often a file is replaced, no descriptor is left of the old ones."""

    def count() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before = count()
    for number in range(5):
        path.with_name("queue.db-inbox").unlink()
        store.put([job(f"j{number}")])
    assert count() == before


def test_a_settled_look_is_cheap(open_store: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """While a folder is as it was, no file in it is looked at, but for a look each quarter of a second."""
    monkeypatch.setattr("taskq.executors.sqlite.connections.LOOK_S", 1000.0)
    identities = open_store().database.connections.get().identities
    eventually(lambda: identities.in_place() and identities.is_settled, "the folder has settled")
    looks: list[int] = []
    monkeypatch.setattr(type(identities), "changed", lambda _: looks.append(1) or [])
    assert all(identities.in_place() for _ in range(100))
    assert looks == []

"""The append log: what was put is there for everybody, once, in order, whoever dies between which two steps."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from taskq import log
from taskq.executors.sqlite import append_log
from taskq.executors.sqlite.append_log import HEADER, RECORD, AppendLog
from taskq.executors.sqlite.disk_space import DiskSpace
from taskq.executors.sqlite.lock import FlockFile
from taskq.executors.sqlite.schema import STEPS
from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import State
from tests.store_steps import job, said, take, tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Killed(BaseException):
    """What stands for the end of a process."""


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk have room, whatever it has: else nothing would go through the append log."""
    monkeypatch.setattr(DiskSpace, "check", lambda *_: False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the append log be ingested and turned every few jobs."""
    monkeypatch.setattr(append_log, "INGEST_AT", 300)
    monkeypatch.setattr(append_log, "ROTATE_AT", 500)


def ids(store: SQLiteStore) -> list[str]:
    """Return all jobs in the order of their submits."""
    rows = store.database.read(lambda c: c.execute("SELECT id FROM jobs ORDER BY n").fetchall())
    return [row[0] for row in rows]


def in_tables(path: Path) -> list[str]:
    """Return the jobs that are rows, as a program sees them that knows nothing of the append log."""
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT id FROM jobs ORDER BY n")]
    finally:
        connection.close()


def abandon(store: SQLiteStore) -> None:
    """Leave a store as a process that is killed does: nothing is ingested, checkpointed or said."""
    store.database.connections.close()


def test_waits_for_the_next_look(path: Path, store: SQLiteStore) -> None:
    """A job put alone is in the append log, not yet in the tables; whoever looks finds it, and then it is in both."""
    store.put([job("a")])
    store.put([job("b")])
    assert in_tables(path) == []
    assert ids(store) == ["a", "b"]
    assert in_tables(path) == ["a", "b"]


def test_everybody_sees_it(store: SQLiteStore, open_store: Callable[[], SQLiteStore], join: Callable[..., Any]) -> None:
    """Another process gets, lists, counts, cancels and claims what one has put, in the order of the puts."""
    other = open_store()
    other.put([job("a")])
    assert store.get(["a"])[0] is not None
    other.put([job("b")])
    assert {record.id for record in store.list()} == {"a", "b"}
    other.put([job("c")])
    assert store.queues()[0].counts == {State.QUEUED: 3}
    other.put([job("d")])
    assert store.cancel(["d"]) == [State.CANCELLED]
    other.put([job("e")])
    assert [one.id for one in take(join())] == ["a", "b", "c", "e"]


def test_order_between_ways(store: SQLiteStore) -> None:
    """Puts that go through the append log and those that do not keep their order among each other."""
    store.put([job("a")])
    store.put([job("b", key="k")])
    store.put([job("c")])
    store.put([job("d"), job("e")])
    store.put([job("f", envelope=b"e" * 5000)])
    store.put([job("g")])
    assert ids(store) == list("abcdefg")


def test_what_it_takes(path: Path, store: SQLiteStore) -> None:
    """Only jobs whose put needs no look at others go through it: no key, no needs, no id of the caller's."""
    store.put([job("base")])
    base = ids(store)
    for number, (options, envelope, depends_on) in enumerate(
        [
            ({"key": "k"}, b"", ()),
            ({"job_id": "mine"}, b"", ()),
            ({"if_exists": "reject"}, b"", ()),
            ({}, b"e" * 1025, ()),
            ({}, b"", ("base",)),
        ]
    ):
        name = options.get("job_id", f"j{number}")
        store.put([job(name, envelope=envelope, depends_on=depends_on, **options)])  # type: ignore[arg-type]
        base.append(name)
        assert in_tables(path) == base
    for options in ({"priority": 5}, {"delay": 60.0}, {"expires": 60.0}, {"result_ttl": 1.0}, {"queue": "q"}):
        store.put([job(f"p{len(base)}", **options)])
        base.append(f"p{len(base)}")
    assert len(in_tables(path)) == 6
    assert ids(store) == base


def test_options_arrive(store: SQLiteStore) -> None:
    """Queue, priority, delay, expiry and time to live of a job are the same by both ways."""
    options: dict[str, Any] = {"queue": "q", "priority": 3, "delay": 60.0, "expires": 90.0, "result_ttl": 7.0}
    store.put([job("inbox", **options)])
    store.put([job("tables", key="k", **options)])
    query = (
        "SELECT state, queue, rank, task, label, max_crashes, round(due - submitted), round(expires - submitted), ttl, "
        "envelope, attempts, ear, needs FROM jobs ORDER BY n"
    )
    rows = store.database.read(lambda c: c.execute(query).fetchall())
    assert rows[0] == rows[1]


def test_put_again(store: SQLiteStore) -> None:
    """A job that is put once more, in the append log or ingested, is still one."""
    for _ in range(2):
        store.put([job("a")])
        store.put([job("a")])
        assert ids(store) == ["a"]


@pytest.mark.usefixtures("small")
def test_turned_often(path: Path, store: SQLiteStore, join: Callable[..., Any]) -> None:
    """Over many turns each job is there once, in order, and the file stays short."""
    names = [f"j{number}" for number in range(200)]
    for name in names[:100]:
        store.put([job(name)])
    member = join()
    for name in names[100:]:
        store.put([job(name)])
        tell(member, *(said(one) for one in take(member, 3)))
    assert ids(store) == names
    assert path.with_name("queue.db-inbox").stat().st_size < 1000


def test_closed_file_is_whole(path: Path, store: SQLiteStore) -> None:
    """When the last one has closed, all jobs are in the file itself."""
    store.put([job("a")])
    store.close()
    assert in_tables(path) == ["a"]


def test_killed_with_jobs_in_it(path: Path, open_store: Callable[[], SQLiteStore]) -> None:
    """After a death the append log's jobs are found, though the page says nothing or nonsense of it."""
    for said_of_it in (b"", os.urandom(4096)):
        store = open_store()
        name = f"j{len(said_of_it)}"
        store.put([job(name)])
        abandon(store)
        assert name not in in_tables(path)
        path.with_name("queue.db-lock").write_bytes(said_of_it)
        assert name in ids(open_store())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("step", ["not synced", "no header", "not on the page"])
def test_killed_at_the_turn(
    path: Path, open_store: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Who dies between the commit of a turn and its last step leaves all jobs, once; ended ones do not come again."""
    store = open_store()
    names: list[str] = []
    real = AppendLog.ingested

    def die(inbox: AppendLog, log: Any) -> None:
        if inbox.rotating is None or len(names) < 8:
            real(inbox, log)
            return
        page = inbox.file.state
        if step != "not synced":
            log.sync_under_lock()
        if step == "not on the page":
            os.pwrite(inbox.file.descriptor, HEADER.pack(append_log.MAGIC, inbox.rotating), 0)
        assert page.end == 0
        raise Killed

    monkeypatch.setattr(AppendLog, "ingested", die)
    with pytest.raises(Killed):
        for number in range(100):
            store.put([job(f"j{number}")])
            names.append(f"j{number}")
    abandon(store)
    monkeypatch.setattr(AppendLog, "ingested", real)
    heir = open_store()
    assert ids(heir) == names
    heir.remove(heir.cancel(names) and names)
    heir.put([job("new")])
    abandon(heir)
    assert ids(open_store()) == ["new"]


def test_torn_record(path: Path, open_store: Callable[[], SQLiteStore]) -> None:
    """What a dying process has left behind the last record is no job, whether half a record or anybody's bytes."""
    for number, rest in enumerate(
        (b"\x40\x00\x00\x00half", bytes(100), os.urandom(300), struct.pack("<II", 9, 9) * 30)
    ):
        store = open_store()
        store.put([job(f"j{number}")])
        end = store.database.page.append_log.end
        abandon(store)
        with path.with_name("queue.db-inbox").open("r+b") as file:
            file.seek(end)
            file.write(rest)
    assert ids(open_store()) == ["j0", "j1", "j2", "j3"]


def test_record_of_an_older_turn(path: Path, open_store: Callable[[], SQLiteStore]) -> None:
    """A whole record from before, standing right behind the last one, is none of this turn's."""
    store = open_store()
    store.put([job("a")])
    store.put([job("b")])
    file = path.with_name("queue.db-inbox")
    first, second = HEADER.size, store.database.page.append_log.end
    record = file.read_bytes()[first:second]
    assert ids(store) == ["a", "b"]
    store.remove(["a", "b"])
    store.cancel(["a", "b"])
    store.remove(["a", "b"])
    abandon(store)
    with file.open("r+b") as opened:
        opened.seek(second)
        opened.write(record)
    assert ids(open_store()) == []


@pytest.mark.parametrize("at", [RECORD.size + 20, 0, 5], ids=["payload", "length", "check"])
def test_damage_costs_one_job(path: Path, store: SQLiteStore, at: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that can no longer be read costs its own job, in words; those behind it are kept."""
    for name in ("a", "b", "c", "d"):
        store.put([job(name)])
    file = path.with_name("queue.db-inbox")
    content = bytearray(file.read_bytes())
    content[HEADER.size + at] ^= 1
    with file.open("r+b") as opened:
        opened.write(content)
    log.configure("json", "error")
    try:
        kept = ids(store)
    finally:
        log.silence()
    assert "a" not in kept
    assert {"c", "d"} <= {*kept}
    assert ("b" in kept) is (at > RECORD.size)  # what follows a damaged length or check is known by nothing
    assert "jobs_lost" in capsys.readouterr().err
    store.put([job("e"), job("f", key="k")])
    assert {"c", "d", "e", "f"} <= {*ids(store)}


def test_damaged_header(path: Path, store: SQLiteStore) -> None:
    """A damaged header costs no job while a program has the file open."""
    store.put([job("a")])
    with path.with_name("queue.db-inbox").open("r+b") as opened:
        opened.write(b"garbage")
    assert ids(store) == ["a"]
    store.put([job("b")])
    assert ids(store) == ["a", "b"]


def test_full_disk(store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is little room a job goes to the tables at once: ingesting it later would need room."""
    monkeypatch.setattr(DiskSpace, "check", lambda *_: True)
    store.put([job("a")])
    assert in_tables(path) == ["a"]


def test_write_cut_short(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that the disk took only half of is an error, and the next one stands in its place."""
    store.put([job("a")])
    real = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", lambda fd, data, at: real(fd, data[:20], at))
        with pytest.raises(Exception, match="writing to its inbox"):
            store.put([job("b")])
    store.put([job("c")])
    assert ids(store) == ["a", "c"]


def test_older_file(path: Path, open_store: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the first schema, which has no inbox, is led up with its jobs, and takes new ones."""
    with monkeypatch.context() as patch:
        patch.setattr("taskq.executors.sqlite.schema.STEPS", STEPS[:1])
        patch.setattr("taskq.executors.sqlite.create.VERSION", 1)
        patch.setattr("taskq.executors.sqlite.schema.migrate.__defaults__", (STEPS[:1],))
        patch.setattr("taskq.executors.sqlite.connections.AppendLog", _NoInbox)
        old = open_store()
        old.database.connections.get().writer.execute(
            "INSERT INTO jobs (id, state, queue, rank, task, fence, max_crashes, submitted) "
            "VALUES ('old', 3, 'default', 0, 'tests:nothing', 1, 3, 1.0)"
        )
        abandon(old)
    store = open_store()
    store.put([job("new")])
    assert ids(store) == ["old", "new"]


class _NoInbox:
    """What the first schema had in its place."""

    def __init__(self, path: Path, *_: Any, **__: Any) -> None:
        descriptor = os.open(path.with_name(path.name + "-inbox"), os.O_RDWR | os.O_CREAT, 0o600)
        self.file = FlockFile(descriptor, contextlib.nullcontext())


#: What `test_any_order` does in any order; a put is the most frequent.
STEPS_OF_ANY = ("put", "put", "put", "other", "key", "two", "read", "die", "forget", "end")


@pytest.mark.usefixtures("small")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.sampled_from(["put", "put", "put", "other", "key", "two", "read", "die", "forget", "end"]), max_size=40
    )
)
def test_any_order(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Whatever happens in whatever order, each accepted job is there once, in order, and none that was removed."""
    path = tmp_path_factory.mktemp("any") / "queue.db"
    stores = [SQLiteStore(f"sqlite://{path}?durability=normal") for _ in range(2)]
    wanted: list[str] = []
    try:
        for number, step in enumerate(steps):
            name = f"j{number}"
            if step in {"put", "other", "key"}:
                stores[step == "other"].put([job(name, key=name if step == "key" else None)])
                wanted.append(name)
            elif step == "two":
                stores[0].put([job(name), job(f"{name}b")])
                wanted += [name, f"{name}b"]
            elif step == "read":
                assert ids(stores[1]) == wanted
            elif step == "die":
                abandon(stores[0])
                stores[0] = SQLiteStore(f"sqlite://{path}?durability=normal")
            elif step == "forget":
                stores[0].database.page.append_log.forget()
            elif wanted:
                gone = wanted.pop(0)
                stores[1].cancel([gone])
                assert stores[1].remove([gone]) == [True]
        assert ids(stores[0]) == wanted
    finally:
        for store in stores:
            store.close()
    assert in_tables(path) == wanted

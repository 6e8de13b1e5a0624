"""The queue file itself: where it is made, who may open it, what is said of a bad one; forks; damage."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable, ConfigError, StoreDamaged, TaskqError
from taskq.executors.sqlite import create as sqlite_create
from taskq.executors.sqlite import schema as sqlite_schema
from taskq.executors.sqlite.place import parse
from taskq.executors.sqlite.store import SQLiteStore
from tests.store_steps import job, see, take
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.store import WorkerSession


# --- URLs


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/q.db", "/var/lib/q.db"),
        ("sqlite:////var/lib/q.db", "/var/lib/q.db"),
        ("SQLITE:///var/lib/q.db?durability=normal", "/var/lib/q.db"),
        ("sqlite:///a%20b/c%3Fd.db", "/a b/c?d.db"),
        ("sqlite:///./q.db", f"{Path.cwd()}/q.db"),
        ("sqlite:///~/q.db", f"{Path.home()}/q.db"),
    ],
)
def test_urls(url: str, path: str) -> None:
    """A URL leads to a path; what it is said as leads there too."""
    place = parse(url)
    assert str(place.path) == path
    assert parse(place.url) == place
    assert place.full == ("normal" not in url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names a folder"),
        ("sqlite:///var/", "names a folder"),
        ("sqlite://queue.db", "'queue.db' stands where a host would"),
        ("sqlite:///:memory:", "local://"),
        ("sqlite:///q.db?durability=fast", "durability='fast': give one of full, normal"),
        ("sqlite:///q.db?durabilty=full", "did you mean durability"),
        ("sqlite:q.db", "not the URL of a queue file"),
    ],
)
def test_bad_urls(url: str, words: str) -> None:
    """A URL that names no queue file is refused with what is wrong."""
    with pytest.raises(ConfigError, match=words):
        SQLiteStore(url)


# --- making and opening


def test_only_for_its_owner(path: Path, url: str, open_store: Callable[[], SQLiteStore]) -> None:
    """The file and all beside it are for the user only; no folder is made for it."""
    where = path.parent / "deep" / "er" / "queue.db"
    with pytest.raises(ConfigError, match=r"its folder is not there.*mkdir"):
        SQLiteStore(f"sqlite://{where}")
    where.parent.mkdir(parents=True)
    store = open_store(f"sqlite://{where}")  # type: ignore[call-arg]
    store.put([job("a")])
    store.subscribe().close()
    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in where.parent.iterdir()}
    assert modes == {
        "queue.db": 0o600,
        "queue.db-wal": 0o600,
        "queue.db-shm": 0o600,
        "queue.db-inbox": 0o600,
        "queue.db-lock": 0o600,
        "queue.db-wake": 0o700,
    }


def test_jobs_stay(path: Path, open_store: Callable[[], SQLiteStore]) -> None:
    """What was put is there when the file is opened again; closing leaves no log behind."""
    first = open_store()
    first.put([job("a")])
    first.close()
    first.close()
    assert not path.with_name("queue.db-wal").exists()
    assert see(open_store(), "a").id == "a"
    with pytest.raises(BackendUnavailable, match="was closed"):
        first.put([job("b")])


def test_pragmas(store: SQLiteStore) -> None:
    """The file is a WAL database of ours, and no connection checkpoints by itself or maps the file."""

    def ask(connection: sqlite3.Connection) -> list[Any]:
        names = ("journal_mode", "application_id", "user_version", "wal_autocheckpoint", "mmap_size", "synchronous")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]  # type: ignore[index]

    for found in (store.database.read(ask), store.database.write(ask)):  # type: ignore[arg-type]
        assert found == ["wal", sqlite_schema.APPLICATION_ID, sqlite_schema.VERSION, 0, 0, 1]


def test_thrown_away(url: str, path: Path) -> None:
    """A store that is dropped without `close` gives its connections and descriptors back."""
    store = SQLiteStore(url)
    store.put([job("a")])
    del store
    gc.collect()
    assert not path.with_name("queue.db-wal").exists()


def test_relative_path_by_mistake() -> None:
    """Whoever writes sqlite:///queue.db and may not write there is asked what he meant."""
    error = sqlite_create.hinted(Path("/queue.db"), BackendUnavailable("no"))
    assert "sqlite:///./queue.db" in str(error)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A path through a file is refused in words."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no folder"):
        SQLiteStore(f"sqlite://{tmp_path}/file/queue.db")


# --- what is no queue file


@pytest.fixture
def spoil(path: Path, url: str) -> Callable[[Callable[[bytearray], Any]], str]:
    """Change the bytes of a closed queue file; return what opening it says."""

    def change(how: Callable[[bytearray], Any]) -> str:
        store = SQLiteStore(url)
        store.put([job(f"j{number}", envelope=b"e" * 500) for number in range(100)])
        store.close()
        data = bytearray(path.read_bytes())
        how(data)
        path.write_bytes(data)
        with pytest.raises(StoreDamaged) as caught:
            SQLiteStore(url)
        assert path.read_bytes() == data
        return str(caught.value)

    return change


def fill(data: bytearray, start: int, end: int) -> None:
    """Overwrite bytes with nonsense."""
    data[start:end] = b"\xa5" * (end - start)


@pytest.mark.parametrize(
    "how",
    [
        lambda data: fill(data, 0, 100),
        lambda data: fill(data, 2048, 4096),
        lambda data: fill(data, 30_000, 40_000),
        lambda data: data.__delitem__(slice(len(data) // 2, None)),
        lambda data: data.clear(),
    ],
    ids=["head", "schema", "middle", "cut", "emptied"],
)
def test_damaged(spoil: Callable[[Any], str], how: Any) -> None:
    """A damaged, cut or emptied file is said to be so when it is opened, with the cure, and is left as it is."""
    assert "restore a backup" in spoil(how)


def test_gone(path: Path, url: str) -> None:
    """A file that was deleted while its log stayed is not begun anew."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_put_and_die, args=(url,))
    child.start()
    child.join()
    path.unlink()
    with pytest.raises(StoreDamaged, match="its log is there"):
        SQLiteStore(url)


def _put_and_die(url: str) -> None:
    store = SQLiteStore(url)
    store.put([job("a")])
    os._exit(0)


def test_other_programs_file(path: Path, url: str) -> None:
    """Another program's database is refused and not touched."""
    path.touch(mode=0o600)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program's"):
        SQLiteStore(url)
    assert path.read_bytes() == before


def test_text_file(path: Path, url: str) -> None:
    """A file that is no database at all is refused and not touched."""
    path.touch(mode=0o600)
    path.write_text("dear diary" * 1000)
    with pytest.raises(StoreDamaged, match="no queue file"):
        SQLiteStore(url)
    assert path.read_text() == "dear diary" * 1000


def test_newer_schema(path: Path, url: str) -> None:
    """A file of a newer taskq is refused with both versions."""
    SQLiteStore(url).close()
    _set_version(path, 99)
    with pytest.raises(ConfigError, match=r"newer taskq \(schema 99, this one knows \d+\): update"):
        SQLiteStore(url)


def test_older_schema(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an older taskq is led up step by step, keeping its jobs; a step that fails leaves it as it was."""
    store = SQLiteStore(url)
    store.put([job("a")])
    store.close()
    before = path.read_bytes()
    bad = (*sqlite_schema.STEPS, "CREATE TABLE fresh (x);\nCREATE TABLE jobs (x);\n")
    _newer_code(monkeypatch, bad)
    with pytest.raises(TaskqError, match="already exists"):
        SQLiteStore(url)
    good = (*sqlite_schema.STEPS, "CREATE TABLE fresh (x);\nINSERT INTO fresh VALUES (1);\n", "ALTER TABLE jobs ADD y")
    _newer_code(monkeypatch, good)
    store = SQLiteStore(url)
    assert see(store, "a").envelope == b"envelope"
    assert store.database.read(lambda c: c.execute("SELECT x, y FROM fresh, jobs").fetchall()) == [(1, None)]
    assert store.database.read(lambda c: c.execute("PRAGMA user_version").fetchone()) == (len(good),)
    store.close()
    assert len(before) > 0


def _newer_code(monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...]) -> None:
    monkeypatch.setattr(sqlite_create, "VERSION", len(steps))
    monkeypatch.setattr(sqlite_create, "migrate", lambda c, version: sqlite_schema.migrate(c, version, steps))


def _set_version(path: Path, version: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


# --- processes and threads


def test_fork(store: SQLiteStore, member: WorkerSession) -> None:
    """A forked copy uses the store by a connection of its own, and the parent goes on with its own."""
    store.put([job("a")])
    subscription = store.subscribe()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_put_in_child, args=(store,))
    child.start()
    child.join()
    assert child.exitcode == 0
    store.put([job("c")])
    assert [one.id for one in take(member)] == ["a", "b", "c"]
    assert [one.name for one in store.workers()] == ["w"]
    subscription.close()


def _put_in_child(store: SQLiteStore) -> None:
    store.put([job("b")])
    assert store.get(["a", "b"]) != [None, None]
    store.close()


def test_fork_while_a_thread_writes(store: SQLiteStore) -> None:
    """A copy that is forked in the middle of another thread's write can write, and so can the parent."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            store.put([job(f"t{number}")])
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_put_one_in_child, args=(store, number)) for number in range(10)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    stop.set()
    thread.join()
    assert [child.exitcode for child in children] == [0] * 10
    assert None not in store.get([f"c{number}" for number in range(10)])
    assert store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]


def _put_one_in_child(store: SQLiteStore, number: int) -> None:
    store.put([job(f"c{number}")])


def test_copy_does_not_hold_the_lock(store: SQLiteStore, member: Any) -> None:
    """What a forked copy has inherited keeps neither the lock held nor a dead worker alive."""
    context = multiprocessing.get_context("fork")
    gate = context.Event()
    child = context.Process(target=gate.wait, args=(30,))
    child.start()
    try:
        member.fifo.after_fork_in_child()
        eventually(lambda: store.workers() == [], "the copy to close what it has inherited")
    finally:
        gate.set()
        child.join()


def test_threads(store: SQLiteStore) -> None:
    """Threads may write and read at once; each one's error is its own."""
    errors: list[BaseException] = []

    def write(first: int) -> None:
        for number in range(first, first + 50):
            store.put([job(f"j{number}")])
            assert see(store, f"j{number}")
            try:
                store.put([job(f"j{number}", job_id="x", if_exists="reject")])
            except TaskqError as exc:
                errors.append(exc)

    threads = [threading.Thread(target=write, args=(1000 * number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 300
    assert len(store.list(limit=1000)) == 300


def test_deleted_lock_file(path: Path, open_store: Callable[[], SQLiteStore]) -> None:
    """When somebody deletes the lock file all go on under the new one, and no commit's number comes twice."""
    first, second = open_store(), open_store()
    for number in range(5):
        first.put([job(f"a{number}")])
    committed = first.database.page.wal.committed
    path.with_name("queue.db-lock").unlink()
    third = open_store()
    third.put([job("c")])
    first.put([job("d")])
    second.put([job("b")])
    assert min(store.database.page.wal.committed for store in (first, second, third)) > committed
    assert len(first.list()) == 8


def test_held_lock(store: SQLiteStore, open_store: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody keeps the lock, whoever writes says which process it is; reading goes on, unless jobs just came."""
    other = open_store()
    store.put([job("a")])
    assert see(store, "a")
    monkeypatch.setattr("taskq.executors.sqlite.lock.PATIENCE", 0.1)
    with other.database.lock:
        monkeypatch.setattr(type(store.database.lock).acquire, "__defaults__", (0.1,))
        with pytest.raises(BackendUnavailable, match=f"process {os.getpid()} has held the lock"):
            store.put([job("b")])
        assert see(store, "a")
    store.put([job("b")])
    with other.database.lock, pytest.raises(BackendUnavailable, match=f"process {os.getpid()} has held the lock"):
        store.get(["b"])


def test_other_programs_transaction(path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write fails in words while a program without our lock holds the file; the append log takes jobs."""
    store.put([job("first")])
    store.database.write(lambda tx: tx.execute("PRAGMA busy_timeout = 50").close())
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    store.put([job("a")])
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="another program holds the file"):
            store.put([job("b", key="k")])
    foreign.execute("ROLLBACK")
    foreign.close()
    store.put([job("b", key="k")])

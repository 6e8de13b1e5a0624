"""Whose the files of a queue may be: links, other owners, second names, other kinds of file, open modes."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.sqlite.store import SQLiteStore
from tests.store_steps import job

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = ["", "-wal", "-shm", "-inbox", "-lock"]


@pytest.mark.parametrize("ending", [*ENDINGS[1:], "-wake"])
def test_link_beside(ending: str, path: Path, url: str, tmp_path: Path) -> None:
    """A symbolic link in the place of a file beside the queue is refused, and what it leads to is not touched."""
    victim = tmp_path / "important"
    victim.write_text("precious")
    SQLiteStore(url).close()
    path.with_name(path.name + ending).unlink(missing_ok=True) if ending != "-wake" else None
    path.with_name(path.name + ending).symlink_to(victim)
    with pytest.raises(ConfigError, match=r"symbolic link|is no folder"):
        SQLiteStore(url).subscribe()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("exists", [True, False])
def test_own_link_to_the_file(exists: bool, path: Path, url: str, tmp_path: Path) -> None:
    """A link of one's own leads to the file: both names are one queue, and nothing is made beside the link."""
    if exists:
        SQLiteStore(url).close()
    link = tmp_path / "here" / "other.db"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(path)
    by_link = SQLiteStore(f"sqlite://{link}")
    by_name = SQLiteStore(url)
    by_link.put([job("a")])
    by_name.put([job("b")])
    assert None not in by_link.get(["a", "b"])
    assert os.listdir(link.parent) == ["other.db"]
    by_link.close()
    by_name.close()


def test_link_in_a_folder_of_others(path: Path, url: str, tmp_path: Path) -> None:
    """A link in a folder in which anybody may put one is refused, in one like /tmp too."""
    SQLiteStore(url).close()
    for mode in (0o777, 0o1777):
        folder = tmp_path / f"open-{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        (folder / "queue.db").symlink_to(path)
        with pytest.raises(ConfigError, match="symbolic link that others may have put there"):
            SQLiteStore(f"sqlite://{folder}/queue.db")


def test_folder_of_others(path: Path, url: str) -> None:
    """A folder to which anybody may write is refused, unless the queue is meant to be shared or only owners delete."""
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="others may put files there"):
        SQLiteStore(url)
    SQLiteStore(f"{url}&shared=1").close()
    path.parent.chmod(0o1777)
    with pytest.raises(ConfigError, match="others than its owner"):
        SQLiteStore(url)  # as it was made to be shared
    for ending in ENDINGS:
        path.with_name(path.name + ending).unlink(missing_ok=True)
    SQLiteStore(url).close()


@pytest.mark.parametrize("ending", ["", "-inbox", "-lock"])
def test_open_or_linked_or_no_file(ending: str, path: Path, url: str) -> None:
    """A file that others may read or write, one with a second name, and a FIFO are refused with what is wrong."""
    SQLiteStore(url).close()
    file = path.with_name(path.name + ending)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod go"):
        SQLiteStore(url)
    SQLiteStore(f"{url}&shared=1").close()
    file.chmod(0o600)
    os.link(file, path.parent / "second")
    with pytest.raises(ConfigError, match="has 2 names"):
        SQLiteStore(url)
    (path.parent / "second").unlink()
    SQLiteStore(url).close()
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(ConfigError, match="no regular file"):
        SQLiteStore(url)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another user's file needs root, to make one")
@pytest.mark.parametrize("ending", ["", "-inbox", "-lock", "-wake", "folder"])
def test_another_users(ending: str, path: Path, url: str) -> None:
    """What belongs to another user is refused, unless the queue is meant to be shared."""
    store = SQLiteStore(url)
    store.subscribe().close()
    store.close()
    os.chown(path.parent if ending == "folder" else path.with_name(path.name + ending), 12345, -1)
    with pytest.raises(ConfigError, match=r"another user|others may put files there"), closing(SQLiteStore(url)) as own:
        own.subscribe()
    shared = SQLiteStore(f"{url}&shared=1")
    shared.subscribe().close()
    shared.close()


def test_prepared_name_of_a_new_file(path: Path, url: str, tmp_path: Path) -> None:
    """A link in the place where a new file is made under another name first is not followed."""
    victim = tmp_path / "important"
    victim.write_text("precious")
    path.with_name(f"queue.db-new-{os.getpid()}").symlink_to(victim)
    SQLiteStore(url).close()
    assert victim.read_text() == "precious"


def test_modes_under_an_open_umask(path: Path, url: str) -> None:
    """What is made is for its owner only, whatever the umask."""
    before = os.umask(0)
    try:
        store = SQLiteStore(url)
        store.subscribe().close()
        modes = [stat.S_IMODE(found.stat().st_mode) & 0o077 for found in path.parent.iterdir()]
        store.close()
    finally:
        os.umask(before)
    assert len(modes) == 6
    assert set(modes) == {0}


def test_a_mistyped_path(path: Path, url: str) -> None:
    """Nothing is made for who only looks, and no folder for anybody; the cure is named."""
    for mode in ("ro", "rw"):
        with pytest.raises(BackendUnavailable, match="there is no queue file: correct the path"):
            SQLiteStore(f"{url}&mode={mode}")
    assert os.listdir(path.parent) == []
    with pytest.raises(ConfigError, match="mkdir"):
        SQLiteStore(f"sqlite://{path.parent}/no/queue.db")
    assert os.listdir(path.parent) == []


def test_no_right_to_write(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be written is said to be so, with its owner; not that a disk may be broken."""
    SQLiteStore(url).close()
    monkeypatch.setattr(os, "access", lambda place, _: place != path)
    monkeypatch.setattr("taskq.executors.sqlite.lock.open_own", _refuse)
    with pytest.raises(BackendUnavailable, match=f"may not write {path}"):
        SQLiteStore(url)


def _refuse(*_: object, **__: object) -> int:
    raise PermissionError(13, "Permission denied")

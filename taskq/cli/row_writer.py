"""The file or stream that rows of `taskq map` go to, and the thread that writes whole rows only.

    command ──put(row)──▶ queue of rows ──writer thread──▶ write(2)

A thread of its own writes, because no signal is ever delivered there: Ctrl-C cannot tear a row. It also gathers what
comes within 50 ms into one write, while a row that comes alone is out at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from taskq.cli.streams import OutputClosed, need_stdout, write_error
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

__all__ = ["Output", "RowWriter", "file_output", "stdout_output"]

#: Seconds between two writes while rows keep coming: no eye sees it, and a write per row would cost more
#: than the row.
GATHER = 0.05

#: Bytes that are written without waiting for more.
PLENTY = 1 << 18

#: Bytes that may wait to be written before the command waits itself: a slow reader must not fill the memory.
CROWDED = 8 << 20

#: Seconds for which a reader that takes nothing is waited for after Ctrl-C.
LAST_CHANCE = 2.0

#: Seconds between two looks at whether anybody reads the pipe, while there is nothing to write.
LOOK = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where rows go; `resumable`: whether the rows that are there can be read back."""

    descriptor: int
    name: str
    resumable: bool


def stdout_output(descriptor: int) -> Output:
    """Return stdout as an output; resumable when it is appended to a file, as with `>> FILE`.

    Raises:
        ConfigError: it is closed.
    """
    need_stdout()
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return Output(descriptor=descriptor, name="stdout", resumable=False)
    appending = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
    return Output(descriptor=descriptor, name="stdout", resumable=appending and sys.platform == "linux")


@contextlib.contextmanager
def file_output(name: str, source: int, *, keep: bool, force: bool = False) -> Iterator[Output]:
    """Open a file for rows, an empty one unless `keep` or `force`; no two commands may write one file at a time.

    Raises:
        ConfigError: it cannot be opened, another command writes it, it is the input itself, is not empty, or
            is a link that somebody else may have put there.
    """
    try:
        descriptor = _open(name)
    except OSError as exc:
        raise ConfigError(f"cannot write {name}: {exc.strerror}") from exc
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        refuse_own_input(descriptor, name, source)
        if regular:
            _lock(descriptor, name)
            if not keep:
                _empty(descriptor, name, force=force)
        yield Output(descriptor=descriptor, name=name, resumable=regular)
    finally:
        os.close(descriptor)


def _empty(descriptor: int, name: str, *, force: bool) -> None:
    if os.fstat(descriptor).st_size and not force:
        raise ConfigError(
            f"{name} is not empty: --resume goes on with the rows of an earlier run, --force overwrites it"
        )
    os.ftruncate(descriptor, 0)


def _is_own_link(path: Path) -> bool:
    """Tell whether it is a symbolic link; refuse one by which another user could make us overwrite our own file."""
    if not path.is_symlink():
        return False
    owner, folder = os.lstat(path).st_uid, path.parent.stat()
    if owner not in {os.geteuid(), 0} or folder.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path} is a symbolic link that somebody else may have put there: name the file itself")
    return True


def _open(name: str) -> int:
    """Open a file to read and write; a device or pipe to write only, or this process would be its reader."""
    path = Path(name)
    follow = 0 if _is_own_link(path) else os.O_NOFOLLOW
    if path.exists() and not path.is_file():
        return os.open(name, os.O_WRONLY | follow)
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | follow, 0o666)
    try:
        _refuse_planted(descriptor, name)
    except ConfigError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_planted(descriptor: int, name: str) -> None:
    """Refuse a file that another user may have put there: to read the rows, or to have a file of ours overwritten."""
    found, folder = os.fstat(descriptor), Path(name).resolve().parent.stat()
    own = {os.geteuid(), 0}
    if folder.st_uid in own and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    if found.st_uid not in own:
        raise ConfigError(f"{name} belongs to another user, who could change what is written there: give another name")
    if found.st_nlink > 1:
        raise ConfigError(f"{name} is a hard link that somebody else may have put there: give another name")


def refuse_own_input(descriptor: int, name: str, source: int) -> None:
    """Refuse to write the file that is being read: it would be emptied, or never end."""
    ours, theirs = os.fstat(descriptor), os.fstat(source)
    if stat.S_ISREG(ours.st_mode) and os.path.samestat(ours, theirs):
        raise ConfigError(f"{name} is the input itself: give the rows another file")


def _lock(descriptor: int, name: str) -> None:
    """Lock by record, not by flock: a child process that outlives us a moment must not hold on to it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise ConfigError(f"another command is writing {name}: wait for its end, or give another file") from exc
    except OSError:  # a file system without locks
        return


class RowWriter:
    """Write rows in their order from a thread of its own. `put` is for one thread.

    Raises from `put`, and at the end of the block:
        OutputClosed: the reader went away.
        CannotWrite: anything else, as a full disk.

    `on_error` is called in that thread as soon as one of them is due: the next row may be long in coming.
    """

    def __init__(self, output: Output, on_error: Callable[[], None] | None = None) -> None:
        self._output = output
        self._on_error = on_error
        self._watched = stat.S_ISFIFO(mode := os.fstat(output.descriptor).st_mode) or stat.S_ISSOCK(mode)
        self._rows: deque[bytes] = deque()
        self._put = 0
        self._written = 0
        self._error: OSError | None = None
        self._closing = self._abandoned = False
        self._wake, self._hurry, self._room = Event(), Event(), Event()
        self._thread = Thread(target=self._run, name="taskq-rows", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._hurry.set()
        self._wake.set()
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._thread.join(LAST_CHANCE if interrupted else None)
        self._abandoned = self._thread.is_alive()
        if self._error is not None and (kind is None or issubclass(kind, OutputClosed)):
            raise write_error(self._error, self._output.name)

    @property
    def put_bytes(self) -> int:
        """How many bytes of rows were put."""
        return self._put

    @property
    def written_bytes(self) -> int:
        """How many of them are written."""
        return self._written

    def put(self, row: bytes) -> None:
        """Have a row written soon."""
        if self._error is not None:
            raise write_error(self._error, self._output.name)
        self._rows.append(row)
        self._put += len(row)
        if not self._wake.is_set():
            self._wake.set()
        waiting = self._put - self._written
        if waiting > PLENTY:
            self._hurry.set()
            if waiting > CROWDED:
                self._wait_for_room()

    def _wait_for_room(self) -> None:
        while self._put - self._written > CROWDED and self._error is None:
            self._room.clear()
            self._hurry.set()
            self._room.wait(GATHER)

    def _run(self) -> None:
        try:
            while (not self._closing or self._rows) and not self._abandoned:
                self._wait_for_rows()
                self._wake.clear()
                self._write_waiting()
                self._hurry.wait(GATHER)
                self._hurry.clear()
        except OSError as exc:
            self._error = exc
            self._rows.clear()
            self._room.set()
            if self._on_error is not None and not self._closing:
                self._on_error()

    def _wait_for_rows(self) -> None:
        """Return when there are rows or the end has come; check now and then whether the pipe is still read."""
        while not self._wake.wait(LOOK if self._watched else None):
            if _is_unread(self._output.descriptor):
                raise BrokenPipeError

    def _write_waiting(self) -> None:
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        data = memoryview(b"".join(rows))
        size = len(data)
        while data and not self._abandoned:
            data = data[self._write(data) :]
        self._written += size
        self._room.set()

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._output.descriptor, data)
        except BlockingIOError:  # who started us made the pipe non-blocking
            select.select([], [self._output.descriptor], [])
            return 0


def _is_unread(descriptor: int) -> bool:
    """Return whether the other end of a pipe or socket is closed."""
    watch = select.poll()
    watch.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLNVAL) for _, events in watch.poll(0))

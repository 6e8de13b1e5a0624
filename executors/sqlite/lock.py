"""The lock of a queue file, through which each process writes: `flock` on the file whose page all of them share.

Every write and every checkpoint of every process goes through it, one at a time. SQLite before 3.51.3 can
damage a file when one connection restarts the log while another commits. Here no process commits while another
checkpoints, so that this cannot happen, whatever SQLite is installed.

The kernel frees a `flock` when its holder dies. A futex on the page tells those who wait that the lock is free: a
blocking flock would wait for ever for a process that was stopped while it held the lock.

An exception of a signal handler may come between any two instructions, and other processes wait for what it leaves
locked. So a thread can ask whether the lock is its own, and holds it within `hold`, which releases what an
interrupted call could not: the lock, however far it was taken or given back.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from contextlib import suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

from taskq.errors import BackendUnavailable
from taskq.executors.sqlite.page import SIZE, Page
from taskq.executors.sqlite.place import open_own
from taskq.locks import is_running

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import FrameType

__all__ = ["PATIENCE", "FlockFile", "LockClosed", "StoreLock"]

T = TypeVar("T")

#: Seconds until a lock that is not given free is a fault of its holder, not traffic.
PATIENCE = 5.0

#: Tries, each after letting others run, before a thread sleeps until it is woken.
YIELDS = 100


class FlockFile:
    """The descriptor of a file that processes take in turn, by a `flock`; -1 when it was given back."""

    def __init__(self, descriptor: int, turn: AbstractContextManager[Any]) -> None:
        """Take a descriptor over; a thread of this process uses it within `turn`."""
        self.descriptor = descriptor
        self._users = turn

    def close(self) -> None:
        """Give the descriptor back; also what a forked copy does, whose descriptor would keep the lock held."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def retire(self) -> None:
        """Give the descriptor back when no thread is at it."""
        with self._users:
            self.close()

    def try_flock(self) -> bool:
        """Take the flock if it is free; return whether it was."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class LockClosed(BackendUnavailable):
    """Say that a lock was closed, perhaps since its file is to be opened again."""


class StoreLock(FlockFile):
    """Hold the lock file's descriptor and the page in it: `with lock:`; safe from threads."""

    def __init__(self, path: Path, page: Page | None = None, *, shared: bool = False) -> None:
        """Open the lock file, make it where it is not there, and have it mapped as `page`."""
        self.path = path
        self.page = page or Page.new()
        self._shared = shared
        mutex: Any = RLock()  # a second flock through one descriptor is granted at once
        self._mutex = mutex
        #: Whether this thread holds it, or was interrupted while it took it or gave it back. Condition asks it too.
        self._is_owned: Callable[[], bool] = mutex._is_owned  # noqa: SLF001
        self._call: FrameType | None = None
        self._pid = os.getpid()  # a forked copy opens a lock of its own
        super().__init__(self._open(), mutex)
        #: Tells whether the queue's files are in their places; whether they were when the lock was taken.
        self.look: Callable[[], bool] | None = None
        self.in_place = True

    def _open(self) -> int:
        descriptor = open_own(self.path, os.O_RDWR | os.O_CREAT, shared=self._shared)
        try:
            if os.fstat(descriptor).st_size < SIZE:
                os.ftruncate(descriptor, SIZE)
            self.page.attach(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def mend(self) -> None:
        """Restore the length of a lock file that was cut: to touch its page would kill the process."""
        with suppress(OSError):
            if os.lseek(self.descriptor, 0, os.SEEK_END) < SIZE:
                os.ftruncate(self.descriptor, SIZE)

    def acquire(self, patience: float = PATIENCE) -> None:
        """Take the lock.

        Raises:
            BackendUnavailable: another thread or process has held it for all of `patience` seconds.
        """
        if self._is_owned():
            self._refuse_to_nest(patience)
        try:
            self._acquire(patience)
            self._call = sys._getframe(1)  # noqa: SLF001  # it has no public name
        except BaseException:
            self.abandon()
            raise

    def _acquire(self, patience: float) -> None:
        if not self._mutex.acquire(timeout=patience):
            raise self._taken(patience)
        while True:
            if self.descriptor < 0:
                raise LockClosed(f"{self.path}: this store was closed; open a new one")
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._wait(patience)
            if self._is_whole():
                break
            self._move()
        self.page.holder = self._pid

    def release(self) -> None:
        """Give the lock free."""
        try:
            self._call = None
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            futex = self.page.lock_futex
            if futex.has_listeners:
                futex.wake(1)
            self._mutex.release()
        except BaseException:
            self.abandon()
            raise

    @property
    def is_mine(self) -> bool:
        """Whether this thread holds it, or was interrupted while it took it or gave it back."""
        return self._is_owned()

    def abandon(self) -> None:
        """Give it free however far it was taken; nothing happens where it is not this thread's."""
        if self._is_owned():
            self._call = None
            if self.descriptor >= 0:
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
                self.page.lock_futex.wake(1)
            self._mutex.release()

    def hold(self, work: Callable[[], T], undo: Callable[[], None] | None = None, patience: float = PATIENCE) -> T:
        """Return what `work()` gives under the lock, which is free afterwards, however that ends.

        `undo` is called before it is given free when something was raised; it may find nothing to undo.

        Raises:
            BackendUnavailable: as from `acquire`.
        """
        if self._is_owned():
            self._refuse_to_nest(patience)
        try:
            try:
                self._acquire(patience)
                self._call = sys._getframe()  # noqa: SLF001  # it has no public name
                value = work()
                self.release()
            except BaseException:
                self._give_up(undo)
                raise
        except BaseException:  # an interrupt while an error was on its way
            self._give_up(undo)
            raise
        return value

    def _give_up(self, undo: Callable[[], None] | None) -> None:
        if self.is_mine:
            try:
                if undo is not None:
                    undo()
            finally:
                self.abandon()

    def _refuse_to_nest(self, patience: float) -> None:
        """Refuse a signal handler's call within a call that holds the lock; free it from one that is over."""
        if is_running(self._call, sys._getframe()):  # noqa: SLF001  # as above
            raise self._taken(patience)
        self.abandon()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_whole(self) -> bool:
        """Return whether this is still the lock file; see on the way whether all the queue's files are in place."""
        if os.lseek(self.descriptor, 0, os.SEEK_END) < SIZE:
            return False
        self.in_place = self.look is not None and self.look()
        return self.in_place or os.fstat(self.descriptor).st_nlink > 0

    def _move(self) -> None:
        """Move to the new lock file where ours was deleted: processes that come later lock that one.

        One that was cut is deleted first: its numbers are gone, and every process starts over.
        """
        old = self.descriptor
        if os.fstat(old).st_size < SIZE:
            os.ftruncate(old, SIZE)
            self.path.unlink(missing_ok=True)
        numbers = self.page.numbers()
        self.descriptor = self._open()
        os.close(old)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self.page.follow(numbers)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def _wait(self, patience: float) -> None:
        for _ in range(YIELDS):  # mostly it is held for a moment, shorter than to sleep and be woken takes
            os.sched_yield()
            if self.try_flock():
                return
        deadline = time.monotonic() + patience
        self.mend()
        futex = self.page.lock_futex
        while True:
            seen = futex.listen()
            if self.try_flock():
                return  # one who waited listens on, for the others: only one of them is woken
            if time.monotonic() > deadline:
                raise self._taken(patience)
            futex.wait(seen)

    def _taken(self, patience: float) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self.path}: process {self.page.holder} has held the lock for {patience:g} s; "
            "if it is stopped (state T in `ps`), let it go on or kill it"
        )

"""The one lock of a queue file: every write and every checkpoint of every process goes through it, one at a time.

SQLite before 3.51.3 can damage a file when one connection begins the log anew while another commits. Nobody commits
here while another checkpoints, so that this cannot happen, whatever SQLite is installed.

It is `flock` on `queue.db-lock`, which the kernel frees when its holder dies. The same file holds the shared page, on
which a futex tells those who wait that it is free: a blocking flock would wait for ever for a process that was stopped
while it held the lock.

An exception of a signal handler may come between any two instructions, and other processes wait for what it leaves
locked. So whose the lock is can be asked, and whoever holds it does so within `hold`, which gives free what an
interrupted call could not: the lock, however far it was taken or given back.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from contextlib import suppress
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from taskq.errors import BackendUnavailable
from taskq.executors.sqlite.access import open_own
from taskq.executors.sqlite.shared import SIZE, Page
from taskq.locks import is_running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from taskq.executors.sqlite.identities import FileIdentities

__all__ = ["LockClosed", "StoreLock"]

T = TypeVar("T")

#: Seconds until a lock that is not given free is somebody's fault, not traffic.
PATIENCE = 5.0

#: Tries, each after letting others run, before a thread sleeps until it is woken.
YIELDS = 100


class LockClosed(BackendUnavailable):
    """Say that a lock was closed, perhaps since its file is to be opened anew."""


class StoreLock:
    """Hold the lock file's descriptor and the page in it: `with lock:`; safe from threads."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._shared = shared
        self._mutex = RLock()  # a second flock through one descriptor is granted at once
        self._call: FrameType | None = None
        self._descriptor = -1
        self._pid = os.getpid()  # a forked copy opens a lock of its own
        self.page: Page = self._open()
        #: Tells whether the queue's files are in their places; whether they were when the lock was taken.
        self.identities: FileIdentities | None = None
        self.in_place = True

    def _open(self) -> Page:
        descriptor = open_own(self.path, os.O_RDWR | os.O_CREAT, shared=self._shared)
        try:
            if os.fstat(descriptor).st_size < SIZE:
                os.ftruncate(descriptor, SIZE)
            page = Page(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return page

    def close(self) -> None:
        """Give the lock file back; also what a forked copy does, whose descriptor would keep the lock held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self.page.close()

    def retire(self) -> None:
        """Give the lock file back, and leave the page to those who may be reading it."""
        with self._mutex:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The lock file's descriptor."""
        return self._descriptor

    def mend(self) -> None:
        """Give a lock file that somebody has cut its length back: to touch its page would kill the process."""
        with suppress(OSError):
            if os.lseek(self._descriptor, 0, os.SEEK_END) < SIZE:
                os.ftruncate(self._descriptor, SIZE)

    def acquire(self, patience: float = PATIENCE) -> None:
        """Take the lock.

        Raises:
            BackendUnavailable: somebody has held it for all of `patience` seconds.
        """
        self._refuse_to_nest(patience)
        try:
            if not self._mutex.acquire(timeout=patience):
                raise self._taken(patience)  # noqa: TRY301  # a step of its own could be interrupted before the try
            self._lock_file(patience)
            self._call = sys._getframe(1)  # noqa: SLF001  # it has no public name
        except BaseException:
            self.abandon()
            raise

    def _lock_file(self, patience: float) -> None:
        while True:
            try:
                fcntl.flock(self._open_descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB)
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
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.page.lock_futex.wake(1)
            self._mutex.release()
        except BaseException:
            self.abandon()
            raise

    @property
    def is_mine(self) -> bool:
        """Whether this thread holds it, or was interrupted while it took it or gave it back."""
        return self._mutex._is_owned()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001  # Condition asks it too

    def abandon(self) -> None:
        """Give it free however far it was taken; nothing happens where it is not this thread's."""
        if self.is_mine:
            self._call = None
            if self._descriptor >= 0:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                self.page.lock_futex.wake(1)
            self._mutex.release()

    def hold(self, work: Callable[[], T], undo: Callable[[], None] | None = None, patience: float = PATIENCE) -> T:
        """Return what `work()` gives under the lock, which is free afterwards, however that ends.

        `undo` is called before it is given free when something was raised; it may find nothing to undo.

        Raises:
            BackendUnavailable: as from `acquire`.
        """
        self._refuse_to_nest(patience)
        try:
            try:
                self.acquire(patience)
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
        if not self.is_mine:
            return
        if is_running(self._call, sys._getframe()):  # noqa: SLF001  # as above
            raise self._taken(patience)
        self.abandon()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def _open_descriptor(self) -> int:
        if self._descriptor < 0:
            raise LockClosed(f"{self.path}: this store was closed; open a new one")
        return self._descriptor

    def _is_whole(self) -> bool:
        """Return whether this is still the lock file; see on the way whether all the queue's files are in place."""
        if os.lseek(self._descriptor, 0, os.SEEK_END) < SIZE:
            return False
        self.in_place = self.identities is not None and self.identities.in_place()
        return self.in_place or os.fstat(self._descriptor).st_nlink > 0

    def _move(self) -> None:
        """Leave a lock file that somebody has deleted: those who come later lock another one. Go where they are.

        One that was cut is deleted first: its numbers are gone, and all are to begin anew.
        """
        old, descriptor = self.page, self._descriptor
        if os.fstat(descriptor).st_size < SIZE:
            os.ftruncate(descriptor, SIZE)
            self.path.unlink(missing_ok=True)
        self.page = self._open()  # the old page stays mapped: another thread may be reading it
        os.close(descriptor)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.page.follow(old)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _take(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait(self, patience: float) -> None:
        for _ in range(YIELDS):  # mostly it is held for a moment, shorter than to sleep and be woken takes
            os.sched_yield()
            if self._take():
                return
        deadline = time.monotonic() + patience
        futex = self.page.lock_futex
        while True:
            seen = futex.listen()
            if self._take():
                return  # one who waited listens on, for the others: only one of them is woken
            if time.monotonic() > deadline:
                raise self._taken(patience)
            futex.wait(seen)

    def _taken(self, patience: float) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self.path}: process {self.page.holder} has held the lock for {patience:g} s; "
            "if it is stopped (state T in `ps`), let it go on or kill it"
        )

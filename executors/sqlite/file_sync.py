"""The syncs of a queue file's logs, SQLite's and the append log: one is made for all who wait for one.

    commit (synchronous=NORMAL) ──▶ number n ──lock given free──▶ sync up to n:
        another is syncing?   wait; did that sync begin after our commit?  then it was ours too
        else                  others about to commit? wait a little
                              read the newest commit's number, fdatasync the log, say that number

Why a power cut loses nothing that was said to be kept. Commits are appended to the log under the lock, each frame with
a checksum over all before it, and a number is given to a commit only when all its frames are written: a sync that
begins afterwards covers it and every commit before it. What comes back after the cut is the log up to its last whole
commit, so a prefix of all commits, which holds each one synced. Torn sectors can only hit frames that were never
synced (SQLite and we rely on disks that do not spoil neighbouring bytes, its default). The two other places where
order matters are SQLite's own at synchronous=NORMAL, under our lock: a checkpoint syncs the log before it writes the
database, and the database before the log may restart; the log's new header is synced before frames follow it.

After a failed sync the kernel may call pages clean that never reached the disk, and the next sync would succeed for
nothing. So a failure marks the log as suspect, and the next sync first rewrites all of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from taskq.executors.sqlite.lock import FlockFile
from taskq.locks import CallLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.sqlite.lock import StoreLock
    from taskq.executors.sqlite.page import SyncState

__all__ = ["FileSync", "sync_data"]

#: How long a sync waits for more commits to join it: a fraction of the last sync, capped at these seconds.
BATCH_WAIT, BATCH_WAIT_S = 0.25, 5e-3

#: Seconds after which we sync ourselves: two syncs at once do no harm, and theirs may never end.
PATIENCE = 1.0

#: Syncs by a process before the file is made as long as it may get. Where it grows, each sync also writes its new
#: length, which takes twice as long.
SYNCS_BEFORE_ROOM = 50
#: Times that room is there on the disk, below which it is not made.
SPARE = 32

REWRITE_PIECE = 1024 * 1024


class FileSync(FlockFile):
    """Sync the file behind a descriptor, the log or the append log; safe from threads.

    `state`: its numbers on the page; `room`: the bytes to which it is made to grow in one step.
    """

    def __init__(self, descriptor: int, lock: StoreLock, state: SyncState, room: int) -> None:
        self._turn = CallLock()
        super().__init__(descriptor, self._turn)
        self._lock = lock
        #: Its numbers on the page.
        self.state = state
        self._room = room
        self._synced = 0
        #: Seconds that the last sync took.
        self.took = 0.0
        #: Syncs made by this process; tests count them.
        self.count = 0

    def up_to(self, number: int) -> None:
        """Return when commit `number` is on the disk.

        Raises:
            OSError: the disk says that it could not write.
        """
        try:
            try:
                self._up_to(number)
            except BaseException:
                self._unlock()
                raise
        except BaseException:  # an interrupt while an error was on its way
            self._unlock()
            raise

    def _up_to(self, number: int) -> None:
        with self._turn:
            if self._synced >= number:
                return
            state = self.state
            before = state.synced
            if before >= number:
                self._synced = number
            elif state.is_alone(number) and not self._wants_room():  # as it seems: two syncs at once do no harm
                self._sync_once(state)
                state.count_sync(number, before)
                self._synced = number
            else:
                self._sync_in_turn(state, number)

    def _unlock(self) -> None:
        """Let others sync; that one more of them does at once does no harm."""
        if self.descriptor >= 0:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def _sync_in_turn(self, state: SyncState, number: int) -> None:
        locked = self._wait_for_turn(state, number)
        try:
            if state.synced >= number:
                self._synced = number
                return
            self._await_batch(state)
            before, target = state.synced, state.committed
            started = time.monotonic()
            self._sync(state)
            self.took = time.monotonic() - started
            self._synced = max(target, number)
            state.count_sync(self._synced, before)
        finally:
            if locked:
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
                if state.synced_futex.has_listeners:
                    state.synced_futex.wake()

    def sync_under_lock(self) -> None:
        """Sync all that was written, now; called by the holder of the store's lock.

        Raises:
            OSError: the disk says that it could not write.
        """
        state = self.state
        again = bool(state.suspect)
        if again:
            self._write_again()
        self._sync_once(state, again=again)

    def _await_batch(self, state: SyncState) -> None:
        """Wait a little until as many have committed as around the last sync.

        Without this, writers released by one sync just miss the next and wait for two.
        """
        wanted = state.synced + state.batch
        if state.committed >= wanted:
            return
        deadline = time.monotonic() + min(self.took * BATCH_WAIT, BATCH_WAIT_S)
        state.wanted = wanted
        while True:
            seen = state.committed_futex.listen()
            left = deadline - time.monotonic()
            if state.committed >= wanted or left <= 0:
                break
            state.committed_futex.wait(seen, left)
        state.wanted = 0

    def _wait_for_turn(self, state: SyncState, number: int) -> bool:
        """Wait for a turn to sync; return whether the flock on the log is ours."""
        if self.try_flock():
            return True
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = state.synced_futex.listen()
            if state.synced >= number:
                return False
            if self.try_flock():
                return True
            if time.monotonic() > deadline:
                return False
            state.synced_futex.wait(seen)

    def _sync(self, state: SyncState) -> None:
        again = bool(state.suspect)
        if again:
            self._lock.hold(self._write_again)
        elif self._wants_room():
            self._make_room()
        self._sync_once(state, again=again)

    def _sync_once(self, state: SyncState, *, again: bool = False) -> None:
        """Sync; `again`: all was rewritten since a sync failed, which this one makes good."""
        self.count += 1
        try:
            sync_data(self.descriptor)
        except OSError:
            state.suspect = 1
            raise
        if again:
            state.suspect = 0

    def _write_again(self) -> None:
        """Make every page of the file dirty again. No other process writes it meanwhile; readers see no change."""
        size = os.fstat(self.descriptor).st_size
        for start in range(0, size, REWRITE_PIECE):
            os.pwrite(self.descriptor, os.pread(self.descriptor, REWRITE_PIECE, start), start)

    def _wants_room(self) -> bool:
        return (self.count + 1) % SYNCS_BEFORE_ROOM == 0

    def _make_room(self) -> None:
        """Let the file grow in one step; zeros are no frames and no records, so that it ends where it ended before."""
        size = os.fstat(self.descriptor).st_size
        disk = os.fstatvfs(self.descriptor)
        if size >= self._room or disk.f_bavail * disk.f_frsize < SPARE * self._room:
            return
        with contextlib.suppress(OSError):
            self._lock.hold(self._write_zeros)

    def _write_zeros(self) -> None:
        for start in range(os.fstat(self.descriptor).st_size, self._room, REWRITE_PIECE):
            os.pwrite(self.descriptor, bytes(min(REWRITE_PIECE, self._room - start)), start)


def _sync_past_cache(descriptor: int) -> None:
    """Have the disk keep what was written where fsync stops at the disk's own cache, as on macOS."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined,unused-ignore]
    except OSError as exc:
        if exc.errno not in {errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}:
            raise
        os.fsync(descriptor)


#: Have the disk keep what was written to a descriptor.
sync_data: Callable[[int], None] = _sync_past_cache if hasattr(fcntl, "F_FULLFSYNC") else os.fdatasync

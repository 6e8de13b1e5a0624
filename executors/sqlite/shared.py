"""The memory that all processes with a queue file share, and the lock through which each of them writes.

    queue.db-lock    one page: counters · futexes · flags of workers and of subscriptions; and `flock`

The page. A counter is one aligned 8-byte field, which the machine reads and writes in one piece. All but `synced`,
`batch` and `wanted`, which belong to those who sync, are written only under the lock. Nothing on the page must survive:
a lost or stale page costs a sync, a wake-up or a look, never a job. The object stays the same for the life of a store:
where the lock file is replaced, the new one is mapped at the same address.

The lock. Every write and every checkpoint of every process goes through it, one at a time. SQLite before 3.51.3 can
damage a file when one connection begins the log anew while another commits. Nobody commits here while another
checkpoints, so that this cannot happen, whatever SQLite is installed.

The kernel frees a `flock` when its holder dies. A futex on the page tells those who wait that the lock is free: a
blocking flock would wait for ever for a process that was stopped while it held the lock.

An exception of a signal handler may come between any two instructions, and other processes wait for what it leaves
locked. So whose the lock is can be asked, and whoever holds it does so within `hold`, which gives free what an
interrupted call could not: the lock, however far it was taken or given back.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import sys
import time
from contextlib import suppress
from ctypes import c_uint32, c_uint64
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskq.errors import BackendUnavailable
from taskq.executors.sqlite.place import open_own
from taskq.locks import is_running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType


__all__ = [
    "ANY",
    "AWAKE",
    "OWN",
    "SIZE",
    "SUBSCRIPTIONS",
    "WORKERS",
    "AppendLogState",
    "Futex",
    "LockClosed",
    "Page",
    "StoreLock",
    "SyncState",
]

T = TypeVar("T")

SIZE: Final = 4096

#: Slots of workers, and of subscriptions. Subscription 0 is nobody's: jobs that nobody waits for name it.
WORKERS: Final = 256
SUBSCRIPTIONS: Final = 2048

#: Flags of a worker: AWAKE, or OWN: it needs work. Of a subscription: AWAKE, wants its OWN jobs' ends, or ANY.
AWAKE, OWN, ANY = 0, 1, 2

_NEEDS_WORK: Final = bytes([OWN])

#: Bits of a check in the append log, which shares its number with the byte that it stands at.
CHECK_BITS: Final = 32
CHECK_MASK: Final = (1 << CHECK_BITS) - 1

#: What the seal of the append log's end differs from it by: garbage on the page does not fit its seal.
_SEAL: Final = 0x7461_736B_5EA1_5EA1

#: Above every number that is counted up to: what is above it was not written by us.
_HIGHEST: Final = 1 << 53

#: Seconds that a lost wake-up costs, and between two looks where there is no futex.
LOST_S, LOOK_S = 2e-3, 1e-4

#: Seconds until a lock that is not given free is somebody's fault, not traffic.
PATIENCE = 5.0

#: Tries, each after letting others run, before a thread sleeps until it is woken.
YIELDS = 100

#: The number of Linux's system call `futex`, by machine (64 bits only).
_NUMBERS: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
_WAIT, _WAKE = 0, 1
_EVERYBODY: Final = 0x7FFFFFFF


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_is_64 = ctypes.sizeof(ctypes.c_void_p) == ctypes.sizeof(c_uint64)
_FUTEX: Final = _NUMBERS.get(os.uname().machine) if sys.platform == "linux" and _is_64 else None
_libc = ctypes.CDLL(None, use_errno=True)
_call = _libc.syscall
_call.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)

#: What Python's `mmap` cannot do: map a file in the place of another. The flag's number is Linux's and macOS's.
_map_at = _libc.mmap
_map_at.restype = ctypes.c_void_p
_map_at.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_MAP_FIXED: Final = 0x10
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class Futex(ctypes.Structure):
    """Wait until another process is done with something, and be woken by it.

        who waits: listen ─▶ try to get it ─▶ still taken: wait        who is done: give it free ─▶ wake

    It only shortens the wait: whoever waits tries again after a while in any case. So what is lost with a process that
    died between the two is a little time, as it is where there is no futex (macOS) or its number is not known.
    """

    wakes: int
    has_listeners: int
    _fields_ = (("wakes", c_uint32), ("has_listeners", c_uint32))

    def listen(self) -> int:
        """Say that somebody is about to wait; return what `wait` has to be given. Afterwards try once more."""
        seen = self.wakes
        self.has_listeners = 1
        return seen

    def wait(self, seen: int, seconds: float = LOST_S) -> None:
        """Wait for a wake-up since `listen`, up to so many seconds, which are below 1."""
        if _FUTEX is None:
            time.sleep(min(seconds, LOOK_S))
        else:
            nap = _Timespec(0, int(seconds * 1e9))
            _call(_FUTEX, ctypes.addressof(self), _WAIT, seen, ctypes.addressof(nap))

    def wake(self, count: int = _EVERYBODY) -> None:
        """Wake so many of those who wait."""
        if not self.has_listeners:
            return
        self.has_listeners = 0
        self.wakes += 1  # it begins again at 0, as a field of 32 bits does
        if _FUTEX is not None:
            _call(_FUTEX, ctypes.addressof(self), _WAKE, count, None)


class SyncState(ctypes.Structure):
    """What of a file that only grows has been written, and what is on the disk: numbers of commits."""

    #: The number of the newest commit, and of the newest one that is known to be on the disk.
    committed: int
    synced: int
    #: Whether a sync has failed since the file was last written anew.
    suspect: int
    #: How many commits there were from the start of the last but one sync to the end of the last.
    batch: int
    #: The number of the commit that somebody waits for who is about to sync; 0: nobody does.
    wanted: int
    #: Woken when it has been synced, and when commit `wanted` is made.
    synced_futex: Futex
    committed_futex: Futex

    def count_commit(self) -> int:
        """Return the number of the commit just made; never one that a stale page says is synced."""
        number = max(self.committed, self.synced) + 1
        if number > _HIGHEST:
            number = self.committed % _HIGHEST + 1
            self.synced = 0
        self.committed = number
        if 0 < self.wanted <= number:
            self.committed_futex.wake()
        return number

    def is_alone(self, number: int) -> bool:
        """Return whether nobody seems to commit beside the one who has made commit `number`, and no sync has failed."""
        return self.committed == number and self.batch <= 1 and not self.suspect

    def count_sync(self, number: int, before: int) -> None:
        """Note that commits up to `number` are on the disk; up to `before` they were when the sync began."""
        self.batch = max(0, self.committed - before)
        self.synced = max(number, self.synced)


class _WalState(SyncState):
    """Where SQLite's log stands."""

    _fields_ = (
        ("_0", c_uint64),
        ("committed", c_uint64),
        ("synced", c_uint64),
        ("_3_to_6", c_uint64 * 4),
        ("suspect", c_uint64),
        ("_8", c_uint64),
        ("batch", c_uint64),
        ("wanted", c_uint64),
    )


class AppendLogState(SyncState):
    """Where the append log stands; see `journal`."""

    #: The byte at which the last record ends, and its check, in one number; and by what that is known to be sound.
    last: int
    seal: int
    #: The byte up to which all is in the tables, or a smaller one.
    ingested: int
    _fields_ = (
        ("committed", c_uint64),
        ("synced", c_uint64),
        ("suspect", c_uint64),
        ("batch", c_uint64),
        ("wanted", c_uint64),
        ("last", c_uint64),
        ("ingested", c_uint64),
        ("seal", c_uint64),
    )

    def known(self) -> int:
        """Return where the last record ends, with its check; 0: nobody knows."""
        last = self.last
        return last if self.seal == last ^ _SEAL else 0

    def know(self, last: int) -> None:
        """Note where the last record ends, with its check; who dies in between leaves what nobody knows."""
        self.last = last
        self.seal = last ^ _SEAL

    @property
    def end(self) -> int:
        """The byte at which the last record ends; 0: nobody knows."""
        return self.known() >> CHECK_BITS

    @property
    def is_waiting(self) -> bool:
        """Whether something is in the append log that may not be in the tables."""
        end = self.known() >> CHECK_BITS
        return end != self.ingested or not end

    def forget(self) -> None:
        """Have the next ingest look where the last record ends."""
        self.last = 0


#: Where the parts stand on the page. Programs of several versions may share it: no place ever gets another meaning.
_WAL_AT, _APPEND_LOG_AT, _FUTEXES_AT, _WORKERS_AT, _SUBSCRIPTIONS_AT = 0, 88, 256, 512, 1024


class Page(ctypes.Structure):
    """The shared page; made by `new`, and mapped by `attach`."""

    #: How many jobs have ended.
    completions: int
    #: About how many pages the log has taken since the last checkpoint.
    frames: int
    #: The process that took the lock last.
    holder: int
    #: A number that changes when a worker comes or goes.
    workers_generation: int
    #: Whether the tables have been made: a file that is empty afterwards has been emptied.
    created: int
    _fields_ = (
        ("_0_to_2", c_uint64 * 3),
        ("completions", c_uint64),
        ("frames", c_uint64),
        ("holder", c_uint64),
        ("workers_generation", c_uint64),
        ("_7", c_uint64),
        ("created", c_uint64),
    )

    _memory: mmap.mmap
    #: Woken when the store's lock is free again.
    lock_futex: Futex
    #: Commits in the log, and appends to the append log.
    wal: SyncState
    append_log: AppendLogState

    @classmethod
    def new(cls) -> Page:
        """Return a page of memory that no other process has yet."""
        memory = mmap.mmap(-1, SIZE)
        page = cls.from_buffer(memory)
        page._memory = memory  # noqa: SLF001  # ctypes calls no __init__ here
        futexes = [Futex.from_buffer(memory, _FUTEXES_AT + number * ctypes.sizeof(Futex)) for number in range(5)]
        page.lock_futex = futexes[0]
        page.wal = _WalState.from_buffer(memory, _WAL_AT)
        page.wal.synced_futex, page.wal.committed_futex = futexes[1:3]
        page.append_log = AppendLogState.from_buffer(memory, _APPEND_LOG_AT)
        page.append_log.synced_futex, page.append_log.committed_futex = futexes[3:5]
        return page

    def attach(self, descriptor: int) -> None:
        """Map a lock file, which is at least SIZE bytes long, in the place of what was mapped."""
        access = mmap.PROT_READ | mmap.PROT_WRITE
        here = ctypes.addressof(self)
        if _map_at(here, SIZE, access, mmap.MAP_SHARED | _MAP_FIXED, descriptor, 0) == _MAP_FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def numbers(self) -> tuple[int, int, int]:
        """Return the numbers that a page which replaces this one goes on from."""
        wal, append_log = self.wal, self.append_log
        return max(wal.committed, wal.synced), max(append_log.committed, append_log.synced), self.completions

    def follow(self, numbers: tuple[int, int, int]) -> None:
        """Go on from the numbers of a page that this one replaces, so that none comes twice."""
        wal, append_log, completions = numbers
        self.wal.committed = max(self.wal.committed, wal)
        self.append_log.committed = max(self.append_log.committed, append_log)
        self.append_log.forget()
        self.completions = max(self.completions, completions)
        self.workers_generation += 1

    @property
    def changes(self) -> int:
        """A number that grows with every commit and every append."""
        return self.wal.committed + self.append_log.committed

    def count_completions(self, count: int, at_least: int = 0) -> int:
        """Return the first of `count` growing numbers for jobs that end, all above `at_least`."""
        known = self.completions
        first = max(known if known < _HIGHEST else 0, at_least) + 1
        self.completions = first + count - 1
        return first

    def count_workers_change(self) -> None:
        """Have everybody read again which worker serves what."""
        self.workers_generation += 1

    # -- who sleeps

    def worker_in_need(self, start: int = 0) -> int:
        """Return the slot of the first worker that needs work from this one on; -1: there is none."""
        return max(-1, self._memory.find(_NEEDS_WORK, _WORKERS_AT + start, _WORKERS_AT + WORKERS) - _WORKERS_AT)

    def flag_worker(self, slot: int, flag: int) -> None:
        """Say whether this worker needs work."""
        self._memory[_WORKERS_AT + slot] = flag

    def subscription_flags(self) -> bytes:
        """Return the flags of all subscriptions."""
        return self._memory[_SUBSCRIPTIONS_AT : _SUBSCRIPTIONS_AT + SUBSCRIPTIONS]

    def subscription_flag(self, slot: int) -> int:
        """Return one subscription's flag."""
        return self._memory[_SUBSCRIPTIONS_AT + slot] if 0 < slot < SUBSCRIPTIONS else AWAKE

    def flag_subscription(self, slot: int, flag: int) -> None:
        """Say what this subscription wants to be woken by."""
        self._memory[_SUBSCRIPTIONS_AT + slot] = flag


class LockClosed(BackendUnavailable):
    """Say that a lock was closed, perhaps since its file is to be opened anew."""


class StoreLock:
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
        self._descriptor = self._open()
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

    def close(self) -> None:
        """Give the lock file back; also what a forked copy does, whose descriptor would keep the lock held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def retire(self) -> None:
        """Give the lock file back when no thread holds the lock."""
        with self._mutex:
            self.close()

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
            if self._descriptor < 0:
                raise LockClosed(f"{self.path}: this store was closed; open a new one")
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        return self._is_owned()

    def abandon(self) -> None:
        """Give it free however far it was taken; nothing happens where it is not this thread's."""
        if self._is_owned():
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
        if os.lseek(self._descriptor, 0, os.SEEK_END) < SIZE:
            return False
        self.in_place = self.look is not None and self.look()
        return self.in_place or os.fstat(self._descriptor).st_nlink > 0

    def _move(self) -> None:
        """Leave a lock file that somebody has deleted: those who come later lock another one. Go where they are.

        One that was cut is deleted first: its numbers are gone, and all are to begin anew.
        """
        old = self._descriptor
        if os.fstat(old).st_size < SIZE:
            os.ftruncate(old, SIZE)
            self.path.unlink(missing_ok=True)
        numbers = self.page.numbers()
        self._descriptor = self._open()
        os.close(old)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.page.follow(numbers)
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
        self.mend()
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

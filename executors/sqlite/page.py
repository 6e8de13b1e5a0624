"""The memory that all processes with a queue file share.

    queue.db-lock    one page: counters · futexes · flags of workers and of subscriptions

A counter is one aligned 8-byte field, which the machine reads and writes in one piece. All but `synced`,
`batch` and `wanted`, which belong to those who sync, are written only under the lock. Nothing on the page must survive:
a lost or stale page costs a sync, a wake-up or a look, never a job. The object stays the same for the life of a store:
where the lock file is replaced, the new one is mapped at the same address.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from ctypes import c_uint32, c_uint64
from typing import Final

__all__ = [
    "ANY",
    "AWAKE",
    "OWN",
    "SIZE",
    "SUBSCRIPTIONS",
    "WORKERS",
    "AppendLogState",
    "Futex",
    "Page",
    "SyncState",
]

SIZE: Final = 4096

#: Slots of workers, and of subscriptions. Subscription 0 is no client's: jobs without a waiting client name it.
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

    It only shortens the wait: a waiter tries again after a while in any case. So what is lost with a process that
    died between the two is a little time, as it is where there is no futex (macOS) or its number is not known.
    """

    wakes: int
    has_listeners: int
    _fields_ = (("wakes", c_uint32), ("has_listeners", c_uint32))

    def listen(self) -> int:
        """Announce a waiter; return what `wait` has to be given. Afterwards try once more."""
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
    #: Whether a sync has failed since the file was last rewritten.
    suspect: int
    #: How many commits there were from the start of the last but one sync to the end of the last.
    batch: int
    #: The number of the commit that a process about to sync waits for; 0: none does.
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
        """Return whether only the maker of commit `number` seems to commit, and no sync has failed."""
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
    """Where the append log stands; see `append_log`."""

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
        """Return where the last record ends, with its check; 0: unknown."""
        last = self.last
        return last if self.seal == last ^ _SEAL else 0

    def know(self, last: int) -> None:
        """Note where the last record ends, with its check; a process that dies in between leaves it unknown."""
        self.last = last
        self.seal = last ^ _SEAL

    @property
    def end(self) -> int:
        """The byte at which the last record ends; 0: unknown."""
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

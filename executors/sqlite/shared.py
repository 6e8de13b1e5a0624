"""A page of memory that all processes with a queue file share, in its lock file: counters, flags, futexes.

    counters · futexes · 256 flags of workers · 2048 flags of subscriptions

A counter is eight aligned bytes, which the machine reads and writes in one piece. All but `synced`, `batch` and
`wanted`, which are of those who sync, are written only under the store's lock. Nothing here must survive: a lost or
stale page costs a sync, a wake-up or a look, never a job.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from typing import Final

__all__ = ["ANY", "AWAKE", "OWN", "SIZE", "SUBSCRIPTIONS", "WORKERS", "AppendLogState", "Futex", "Page", "SyncState"]

SIZE: Final = 4096

#: Slots of workers, and of subscriptions. Subscription 0 is nobody's: jobs that nobody waits for name it.
WORKERS: Final = 256
SUBSCRIPTIONS: Final = 2048

#: Flags of a worker: AWAKE, or OWN: it needs work. Of a subscription: AWAKE, wants its OWN jobs' ends, or ANY.
AWAKE, OWN, ANY = 0, 1, 2

_FUTEXES_AT: Final = 256
_NEEDS_WORK: Final = bytes([OWN])

_WORKERS_AT: Final = 512
_SUBSCRIPTIONS_AT: Final = 1024

#: Which number stands where. Programs of several versions may share the page: no place ever gets another meaning.
_ENDED, _FRAMES, _HOLDER, _WORKERS_GENERATION, _CREATED, _APPEND_LAST, _APPEND_INGESTED = 3, 4, 5, 6, 8, 16, 17

#: Where the five numbers of the log's and of the append log's state stand, and the first of their two futexes.
_LOG, _INBOX = ((1, 2, 7, 9, 10), 1), ((11, 12, 13, 14, 15), 3)
_FUTEXES: Final = 5

#: Bits of a check in the append log, which shares its number with the byte that it stands at.
_CHECK_BITS: Final = 32

#: Bytes of a futex on the page: a number that changes with each wake-up, and whether somebody listens.
FUTEX_BYTES: Final = 8

#: Seconds that a lost wake-up costs, and between two looks where there is no futex.
LOST_S, LOOK_S = 2e-3, 1e-4

#: The number of Linux's system call `futex`, by machine (64 bits only).
_NUMBERS: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
_WAIT, _WAKE = 0, 1
_EVERYBODY: Final = 0x7FFFFFFF
_LAST: Final = 0xFFFFFFFF


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_is_64 = ctypes.sizeof(ctypes.c_void_p) == FUTEX_BYTES
_FUTEX: Final = _NUMBERS.get(os.uname().machine) if sys.platform == "linux" and _is_64 else None
_call = ctypes.CDLL(None).syscall
_call.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)


class Page:
    """The shared page over the descriptor of the lock file, which is at least SIZE bytes long."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        self._bytes = memoryview(self._map)
        self._numbers = self._bytes.cast("Q")
        self._futexes = [Futex(self._map, _FUTEXES_AT + number * FUTEX_BYTES) for number in range(_FUTEXES)]
        #: Rung when the store's lock is free again.
        self.lock_futex = self._futexes[0]
        #: Commits in the log, and appends to the append log.
        self.wal = SyncState(self._numbers, self._futexes, *_LOG)
        self.append_log = AppendLogState(self._numbers, SyncState(self._numbers, self._futexes, *_INBOX))

    def close(self) -> None:
        """Give the memory back; nothing may be read afterwards."""
        for futex in self._futexes:
            futex.close()
        self._numbers.release()
        self._bytes.release()
        self._map.close()

    def follow(self, old: Page) -> None:
        """Go on from the numbers of a page that this one replaces, so that none comes twice."""
        self.wal.follow(old.wal)
        self.append_log.sync_state.follow(old.append_log.sync_state)
        self.append_log.forget()
        self._numbers[_ENDED] = max(self._numbers[_ENDED], old._numbers[_ENDED])
        self.count_workers_change()

    # -- commits

    @property
    def changes(self) -> int:
        """A number that grows with every commit and every append to the append log."""
        return self.wal.committed + self.append_log.sync_state.committed

    @property
    def frames(self) -> int:
        """About how many pages the log has taken since the last checkpoint."""
        return self._numbers[_FRAMES]

    @frames.setter
    def frames(self, count: int) -> None:
        self._numbers[_FRAMES] = count

    @property
    def holder(self) -> int:
        """The process that took the lock last."""
        return self._numbers[_HOLDER]

    @holder.setter
    def holder(self, pid: int) -> None:
        self._numbers[_HOLDER] = pid

    @property
    def created(self) -> bool:
        """Whether the tables have been made: a file that is empty afterwards has been emptied."""
        return bool(self._numbers[_CREATED])

    @created.setter
    def created(self, value: bool) -> None:
        self._numbers[_CREATED] = int(value)

    # -- ends of jobs

    def count_ends(self, count: int, at_least: int = 0) -> int:
        """Return the first of `count` growing numbers for jobs that end, all above `at_least`."""
        first = max(self._numbers[_ENDED], at_least) + 1
        self._numbers[_ENDED] = first + count - 1
        return first

    # -- who sleeps

    @property
    def workers_generation(self) -> int:
        """A number that changes when a worker comes or goes."""
        return self._numbers[_WORKERS_GENERATION]

    def count_workers_change(self) -> None:
        """Have everybody read again which worker serves what."""
        self._numbers[_WORKERS_GENERATION] += 1

    def worker_in_need(self, start: int = 0) -> int:
        """Return the slot of the first worker that needs work from this one on; -1: there is none."""
        return max(-1, self._map.find(_NEEDS_WORK, _WORKERS_AT + start, _WORKERS_AT + WORKERS) - _WORKERS_AT)

    def flag_worker(self, slot: int, flag: int) -> None:
        """Say whether this worker needs work."""
        self._bytes[_WORKERS_AT + slot] = flag

    def subscription_flags(self) -> bytes:
        """Return the flags of all subscriptions."""
        return self._map[_SUBSCRIPTIONS_AT : _SUBSCRIPTIONS_AT + SUBSCRIPTIONS]

    def subscription_flag(self, slot: int) -> int:
        """Return one subscription's flag."""
        return self._bytes[_SUBSCRIPTIONS_AT + slot] if 0 < slot < SUBSCRIPTIONS else AWAKE

    def flag_subscription(self, slot: int, flag: int) -> None:
        """Say what this subscription wants to be woken by."""
        self._bytes[_SUBSCRIPTIONS_AT + slot] = flag


class AppendLogState:
    """Where the append log stands; see `inbox`."""

    def __init__(self, numbers: memoryview[int], state: SyncState) -> None:
        self._numbers = numbers
        self.sync_state = state

    @property
    def last(self) -> tuple[int, int]:
        """The byte at which the last record ends, and its check: one number, so that both change at once."""
        number = self._numbers[_APPEND_LAST]
        return number >> _CHECK_BITS, number & _LAST

    @last.setter
    def last(self, value: tuple[int, int]) -> None:
        self._numbers[_APPEND_LAST] = value[0] << _CHECK_BITS | value[1]

    @property
    def end(self) -> int:
        """The byte at which the last record ends; 0: nobody knows."""
        return self._numbers[_APPEND_LAST] >> _CHECK_BITS

    @property
    def ingested(self) -> int:
        """The byte up to which all is in the tables, or a smaller one."""
        return self._numbers[_APPEND_INGESTED]

    @ingested.setter
    def ingested(self, end: int) -> None:
        self._numbers[_APPEND_INGESTED] = end

    @property
    def is_waiting(self) -> bool:
        """Whether something is in the append log that may not be in the tables."""
        return self.end != self.ingested or not self.end

    def forget(self) -> None:
        """Have the next ingest look where the last record ends."""
        self._numbers[_APPEND_LAST] = 0


class SyncState:
    """What of a file that only grows has been written, and what is on the disk: numbers of commits."""

    def __init__(
        self, numbers: memoryview[int], futexes: list[Futex], places: tuple[int, int, int, int, int], first_futex: int
    ) -> None:
        self._numbers = numbers
        self._committed, self._synced, self._suspect, self._batch, self._wanted = places
        #: Rung when it has been synced, and when commit `wanted` is made.
        self.synced_futex, self.committed_futex = futexes[first_futex : first_futex + 2]

    def follow(self, old: SyncState) -> None:
        """Go on from the numbers of another one."""
        self._numbers[self._committed] = max(self.committed, old.committed, old.synced)

    @property
    def committed(self) -> int:
        """The number of the newest commit."""
        return self._numbers[self._committed]

    @property
    def synced(self) -> int:
        """The number of the newest commit that is known to be on the disk."""
        return self._numbers[self._synced]

    @synced.setter
    def synced(self, number: int) -> None:
        self._numbers[self._synced] = max(number, self._numbers[self._synced])

    def count_commit(self) -> int:
        """Return the number of the commit just made; never one that a stale page says is synced."""
        numbers = self._numbers
        number = max(numbers[self._committed], numbers[self._synced]) + 1
        numbers[self._committed] = number
        if 0 < numbers[self._wanted] <= number:
            self.committed_futex.wake()
        return number

    @property
    def batch(self) -> int:
        """How many commits there were from the start of the last but one sync to the end of the last."""
        return self._numbers[self._batch]

    @batch.setter
    def batch(self, count: int) -> None:
        self._numbers[self._batch] = max(0, count)

    def is_alone(self, number: int) -> bool:
        """Return whether nobody seems to commit beside the one who has made commit `number`, and no sync has failed."""
        numbers = self._numbers
        return numbers[self._committed] == number and numbers[self._batch] <= 1 and not numbers[self._suspect]

    @property
    def wanted(self) -> int:
        """The number of the commit that somebody waits for who is about to sync; 0: nobody does."""
        return self._numbers[self._wanted]

    @wanted.setter
    def wanted(self, number: int) -> None:
        self._numbers[self._wanted] = number

    @property
    def suspect(self) -> bool:
        """Whether a sync has failed since the file was last written anew."""
        return bool(self._numbers[self._suspect])

    @suspect.setter
    def suspect(self, value: bool) -> None:
        self._numbers[self._suspect] = int(value)


class Futex:
    """Wait until another process is done with something, and be woken by it: a futex on the page.

        who waits: listen ─▶ try to get it ─▶ still taken: wait        who is done: give it free ─▶ wake

    It only shortens the wait: whoever waits tries again after a while in any case. So what is lost with a process that
    died between the two is a little time, as it is where there is no futex (macOS) or its number is not known.
    """

    def __init__(self, page: mmap.mmap, at: int) -> None:
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(page)) + at
        #: How often it was seen, and whether somebody listens.
        self._numbers = memoryview(page)[at : at + FUTEX_BYTES].cast("I")

    def close(self) -> None:
        """Give the memory back."""
        self._numbers.release()

    def listen(self) -> int:
        """Say that somebody is about to wait; return what `wait` has to be given. Afterwards try once more."""
        seen = self._numbers[0]
        self._numbers[1] = 1
        return seen

    def wait(self, seen: int, seconds: float = LOST_S) -> None:
        """Wait for a wake-up since `listen`, up to so many seconds, which are below 1."""
        if _FUTEX is None:
            time.sleep(min(seconds, LOOK_S))
        else:
            nap = _Timespec(0, int(seconds * 1e9))
            _call(_FUTEX, self._address, _WAIT, seen, ctypes.addressof(nap))

    def wake(self, count: int = _EVERYBODY) -> None:
        """Wake so many of those who wait."""
        if not self._numbers[1]:
            return
        self._numbers[1] = 0
        self._numbers[0] = (self._numbers[0] + 1) & _LAST
        if _FUTEX is not None:
            _call(_FUTEX, self._address, _WAKE, count, None)

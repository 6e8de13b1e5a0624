"""Wake-ups between the processes of one queue file: a FIFO for each worker and each subscription, beside the file.

    queue.db-wake/worker-0   worker-1   ear-1   ear-2 ...

    sleeper: flag on the page ─▶ look once more ─▶ poll its FIFO          waker: commit ─▶ flag set? ─▶ one byte

Whoever commits after the flag was set sees it; what was committed before, the sleeper sees when it looks. A FIFO that
nobody reads any more cannot be opened for writing (ENXIO): that is also how a dead worker is known. The kernel closes
the reading end when its process dies, however it dies, at once and after a restart of the machine too; it knows no
clock, and a process that has got the dead one's pid is not mistaken for it. A forked copy closes its ends at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time
from collections import deque
from typing import TYPE_CHECKING

from taskq.errors import BackendUnavailable
from taskq.executors.sqlite.create import beside
from taskq.executors.sqlite.fork import watch
from taskq.executors.sqlite.page import ANY, AWAKE, SUBSCRIPTIONS, WORKERS
from taskq.executors.sqlite.place import check_wake, from_os
from taskq.executors.sqlite.schema import as_text
from taskq.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from taskq.executors.sqlite.database import Database
    from taskq.executors.sqlite.transaction import Tx

__all__ = ["Fifo", "Wakeups", "is_read", "is_readable", "notify", "reader_of"]

#: Bytes read at once; more than is written while one sleeps.
DRAIN = 65536

#: How a FIFO is opened to wake its reader, and what says that there is none: it, or its folder, was removed.
NOTIFY = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
UNREAD = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR})


class Wakeups:
    """Find the FIFOs of one queue file, and wake who sleeps at them; safe from threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._page = database.page
        self._folder = str(beside(database.path, "-wake"))
        #: Seconds after which a worker that has not renewed is frozen; see `Store.lease`.
        self.lease: float = Store.lease
        self._known_workers: tuple[int, dict[int, tuple[str, frozenset[str]]]] = (-1, {})

    def worker_path(self, slot: int) -> str:
        """Return where the worker of this slot listens."""
        return f"{self._folder}/worker-{slot}"

    def new_worker(self, taken: Collection[int] = ()) -> tuple[int, Fifo]:
        """Return a free slot of workers with its FIFO, none of those `taken`. Called under the lock."""
        return self._new("worker", [slot for slot in range(WORKERS) if slot not in taken])

    def new_subscription(self) -> tuple[int, Fifo]:
        """Return a free slot of subscriptions with its FIFO. Called under the lock."""
        return self._new("ear", range(1, SUBSCRIPTIONS))

    def make_folder(self) -> None:
        """Make the folder of FIFOs, if it is not there.

        Raises:
            ConfigError: something else is in its place, or another's.
            OSError: it cannot be made.
        """
        shared = self._database.place.shared
        try:
            os.mkdir(self._folder, 0o770 if shared else 0o700)  # noqa: PTH102 - the path is text, for speed
        except FileExistsError:
            check_wake(beside(self._database.path, "-wake"), shared=shared)

    def _new(self, kind: str, slots: Iterable[int]) -> tuple[int, Fifo]:
        try:
            self.make_folder()
            for slot in slots:
                path = f"{self._folder}/{kind}-{slot}"
                if not is_read(path):
                    return slot, Fifo(path, 0o660 if self._database.place.shared else 0o600)
        except OSError as exc:
            raise from_os(self._database.path, exc, "making a FIFO in its folder -wake") from exc
        raise BackendUnavailable(f"{self._database.path}: all places for {kind}s are taken; end some of them")

    # -- waking

    def after(self, tx: Tx) -> None:
        """Wake those workers that this transaction gives something to do."""
        for queue, count in tx.queued.items():
            self._wake_needing_work(queue, count)
        for name in tx.workers_to_wake:
            self.wake_worker(name)

    def after_append(self, queue: str) -> None:
        """Wake a worker for a job that has come into the append log."""
        self._wake_needing_work(queue, 1)

    def _wake_needing_work(self, queue: str, count: int) -> None:
        """Wake as many workers of a queue as there are new jobs: each is awake by the time of the next commit."""
        page = self._page
        slot = -1
        while count > 0 and (slot := page.worker_in_need(slot + 1)) >= 0:
            if self._serves(slot, queue):
                page.flag_worker(slot, AWAKE)
                count -= notify(self.worker_path(slot))

    def wake_worker(self, name: str) -> None:
        """Wake one worker, whether it needs work or not."""
        for slot, (known, _) in self._current_workers().items():
            if known == name:
                notify(self.worker_path(slot))

    def wake_workers(self) -> None:
        """Wake all workers."""
        for slot in self._current_workers():
            notify(self.worker_path(slot))

    def wake_subscriptions(self, tx: Tx) -> None:
        """Wake the subscriptions that want to hear of jobs that this transaction has ended."""
        if not tx.ended:
            return
        page = self._page
        flags = page.subscription_flags()
        wanted = {slot for slot in tx.subscriptions if 0 < slot < SUBSCRIPTIONS and flags[slot]}
        slot = flags.find(ANY)
        while slot >= 0:
            wanted.add(slot)
            slot = flags.find(ANY, slot + 1)
        for slot in wanted:
            page.flag_subscription(slot, AWAKE)
            notify(f"{self._folder}/ear-{slot}")

    def _serves(self, slot: int, queue: str) -> bool:
        known = self._current_workers().get(slot)
        return known is not None and (not known[1] or queue in known[1])

    def _current_workers(self) -> dict[int, tuple[str, frozenset[str]]]:
        """Return name and queues of each worker by its slot, read again when one has come or gone."""
        number = self._page.workers_generation
        if self._known_workers[0] != number:
            rows = self._database.read(lambda c: c.execute("SELECT slot, name, queues FROM workers").fetchall())
            found = {
                slot: (name, frozenset(filter(None, as_text(queues).split(","))))
                for slot, name, queues in rows
                if 0 <= slot < WORKERS
            }
            self._known_workers = number, found
        return self._known_workers[1]


class Fifo:
    """The reading end of a FIFO, and a writing end so that it never looks closed."""

    def __init__(self, path: str, mode: int = 0o600) -> None:
        self.path = path
        self._mode = mode
        self.reader = self.writer = -1
        watch(self)
        self._make()

    def _make(self) -> None:
        """Put it in its place only when it has a reader: one without is taken for a dead worker's."""
        fresh = f"{self.path}-new-{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)  # noqa: PTH108 - the path is text, for speed
        os.mkfifo(fresh, self._mode)
        try:
            self.reader = os.open(fresh, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.writer = os.open(fresh, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._take_name(fresh)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)  # noqa: PTH108 - as above
            self._close_ends()
            raise

    def _take_name(self, fresh: str) -> None:
        try:
            os.rename(fresh, self.path)  # noqa: PTH104 - as above
        except IsADirectoryError:  # the name is ours all the same
            os.rename(self.path, f"{self.path}-aside-{time.time_ns()}")  # noqa: PTH104 - as above
            os.rename(fresh, self.path)  # noqa: PTH104 - as above

    def remake(self) -> None:
        """Take the place again, where the FIFO was removed and no other took its place."""
        if is_read(self.path):
            return
        ends = self.reader, self.writer
        self._make()
        for descriptor in ends:
            os.close(descriptor)

    def is_there(self) -> bool:
        """Return whether the file in its place is still this FIFO."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.reader))  # noqa: PTH116 - as above
        except OSError:
            return False

    def wait(self, seconds: float, *descriptors: int) -> None:
        """Return when a wake-up comes, when one of the descriptors is readable, or after these seconds."""
        poll = select.poll()
        for descriptor in (self.reader, *descriptors):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)

    def drain(self) -> bool:
        """Take out what wakers have written; return whether there was any."""
        try:
            return bool(os.read(self.reader, DRAIN))
        except BlockingIOError:
            return False

    def wake(self) -> None:
        """Wake the process that waits here."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.writer, b".")

    def close(self) -> None:
        """Take it away. Safe to call twice."""
        if self.reader >= 0:
            if self.is_there():
                os.unlink(self.path)  # noqa: PTH108 - as above
            self._close_ends()

    def _close_ends(self) -> None:
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)
        self.reader = self.writer = -1

    def after_fork_in_child(self) -> None:
        """Close the ends without taking it away: what a forked copy does."""
        self._close_ends()


def notify(path: str) -> bool:
    """Wake the reader of this FIFO; return whether there is one."""
    opened: list[int | None] = [None]
    try:
        _open_into(opened, path)
        os.write(opened[-1] or 0, b".")
        _close_all(opened)
    except OSError as exc:
        _close_all(opened)
        if exc.errno in UNREAD or exc.errno == errno.ENXIO:
            return False
        if exc.errno not in {errno.EAGAIN, errno.EPIPE}:  # it is full of wake-ups already, or its reader dies just now
            raise
    except BaseException:
        _close_all(opened)
        raise
    return True


def is_readable(descriptor: int) -> bool:
    """Return whether something can be read there now."""
    poll = select.poll()
    if descriptor < 0:
        return False
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def is_read(path: str) -> bool:
    """Return whether this FIFO has a reader."""
    return bool(reader_of(path))


def reader_of(path: str) -> bool | None:
    """Return whether this FIFO has a reader; None: it is not there, so that it is unknown."""
    opened: list[int | None] = [None]
    try:
        _open_into(opened, path)
        is_fifo = stat.S_ISFIFO(os.fstat(opened[-1] or 0).st_mode)
        _close_all(opened)
    except OSError as exc:
        _close_all(opened)
        if exc.errno == errno.ENXIO:
            return False
        if exc.errno in UNREAD:
            return None
        raise
    except BaseException:
        _close_all(opened)
        raise
    return True if is_fifo else None


def _open_into(opened: list[int | None], path: str) -> None:
    """Open a FIFO for writing into a list: in one call of C, as an interrupt must not come between the two."""
    opened.extend(map(os.open, (path,), (NOTIFY,)))


def _close_all(opened: list[int | None]) -> None:
    """Close what is in the list, behind a None, as well in one call of C."""
    try:
        deque(map(os.close, iter(opened.pop, None)), 0)
    except IndexError:  # it was done before
        return

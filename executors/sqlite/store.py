"""The store behind `sqlite:///path`: jobs in one file, for all processes of one machine.

    SQLiteStore   ─▶ append_log · jobs · queries         what clients ask for
    .join()       ─▶ session ─▶ claims · maintenance ─▶ jobs
    .subscribe()  ─▶ subscription ─▶ wakeups: FIFOs, by which processes wake each other
                      │
    all of it through `database`: one lock (`lock`), commits of a group (`database`), syncs of a group (`file_sync`)

Beside `queue.db` stand SQLite's own -wal and -shm, our -inbox and -lock, and the folder -wake.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskq.executors.sqlite.database import Database
from taskq.executors.sqlite.doctor import examine
from taskq.executors.sqlite.jobs import can_append, cancel, put, remove, retry
from taskq.executors.sqlite.maintenance import is_dead
from taskq.executors.sqlite.place import parse
from taskq.executors.sqlite.queries import find_jobs, get_jobs, list_queues, list_workers, read_log
from taskq.executors.sqlite.schema import chunks, row_of
from taskq.executors.sqlite.session import SQLiteSession
from taskq.executors.sqlite.subscription import SQLiteSubscription
from taskq.executors.sqlite.wakeups import Wakeups
from taskq.store import NO_SEALS, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from taskq.executors.sqlite.transaction import Tx
    from taskq.states import State
    from taskq.store import Finding, JobQuery, JobRecord, NewJob, QueueRecord, Subscription, WorkerRecord, WorkerSession

    T = TypeVar("T")

__all__ = ["SQLiteStore"]

#: Jobs of one such transaction: it must fit in the room that is kept on a small disk, for `remove` to give room back.
PART = 50


class SQLiteStore(Store):
    """Keep jobs in the queue file that a URL names; it is made when it is not there.

    `?durability=full` (the default): what a method has returned survives a power cut. `normal`: a power cut may take
    the last seconds; everything survives any death of processes.

    Raises:
        ConfigError: the URL is wrong, the file another program's, or a newer taskq's.
        StoreDamaged: the file is damaged.
        BackendUnavailable, StoreFull: it cannot be opened or made.
    """

    def __init__(self, url: str) -> None:
        place = parse(url)
        self.url = place.url
        #: The queue file, as this process has it open.
        self.database = Database(place)
        self._wakeups = Wakeups(self.database)
        self._subscriptions: dict[str, SQLiteSubscription] = {}

    @property
    def lease(self) -> float:
        """Seconds until a worker without a heartbeat is taken for frozen."""
        return self._wakeups.lease

    @lease.setter
    def lease(self, seconds: float) -> None:
        self._wakeups.lease = seconds

    def _write(self, work: Callable[[Tx], T]) -> T:
        """Write, and wake whoever that concerns: workers as soon as it shows, subscriptions when it will last."""
        return self.database.write(work, after=self._wakeups.after, kept=self._wakeups.wake_subscriptions)

    def _write_in_parts(self, ids: Sequence[str], work: Callable[[Tx, Sequence[str]], list[T]]) -> list[T]:
        """Do something to each of many jobs, in transactions behind which others need not wait long."""
        found: list[T] = []
        for part in chunks(ids, PART):
            found += self._write(lambda tx, part=part: work(tx, part))  # type: ignore[misc]
        return found

    # -- jobs

    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        if not jobs:
            return []
        short = self.database.disk_space.check(sum([len(job.envelope) for job in jobs]), len(jobs))
        address = int(reply_to or 0)
        if len(jobs) == 1 and not short and can_append(jobs[0]):
            return [self._append(jobs[0], address)]
        return self._write(lambda tx: put(tx, jobs, address))

    def _append(self, job: NewJob, address: int) -> str:
        number = self.database.append(row_of(job, address, time.time()))
        self._wakeups.after_append(job.options.queue)
        self.database.sync_append(number)
        return job.id

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        return self.database.read(lambda connection: get_jobs(connection, ids, payload=payload))

    def find(self, query: JobQuery) -> list[JobRecord]:
        return self.database.read(lambda connection: find_jobs(connection, query))

    def cancel(
        self, ids: Sequence[str], *, kill: bool = False, seals: Mapping[str, bytes] = NO_SEALS
    ) -> list[State | None]:
        return self._write_in_parts(ids, lambda tx, part: cancel(tx, part, kill=kill, seals=seals))

    def retry(self, ids: Sequence[str]) -> list[bool]:
        return self._write_in_parts(ids, retry)

    def remove(self, ids: Sequence[str]) -> list[bool]:
        return self._write_in_parts(ids, remove)

    def log(self, job_id: str, offset: int = 0) -> bytes:
        return self.database.read(lambda connection: read_log(connection, job_id, offset))

    # -- queues and workers

    def queues(self) -> list[QueueRecord]:
        return self.database.read(list_queues)

    def workers(self) -> list[WorkerRecord]:
        rows = self.database.read(list_workers)
        return [record for slot, renewed, record in rows if not is_dead(self._wakeups, slot, renewed)]

    def pause(self, queue: str) -> None:
        self._write(lambda tx: tx.execute("INSERT OR IGNORE INTO paused (queue) VALUES (?)", (queue,)).close())

    def resume(self, queue: str) -> None:
        self._write(lambda tx: tx.execute("DELETE FROM paused WHERE queue = ?", (queue,)).close())
        self._wakeups.wake_workers()

    def doctor(self) -> list[Finding]:
        return examine(self.database, self._wakeups)

    # -- for clients and workers

    def subscribe(self) -> Subscription:
        made = SQLiteSubscription(self.database, self._wakeups)
        self._subscriptions = {
            address: subscription for address, subscription in self._subscriptions.items() if not subscription.is_closed
        }
        self._subscriptions[made.reply_to] = made
        return made

    def join(self, record: WorkerRecord) -> WorkerSession:
        return SQLiteSession(self.database, self._wakeups, record)

    def close(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.close()
        self.database.close()

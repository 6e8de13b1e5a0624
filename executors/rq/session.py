"""A worker's place among RQ's workers: one entry with many executions.

    poll ──▶ one round trip:  finish script (what became of jobs) · note script · claim script (new ones)
                 none, for a job that was handed over (see registration)
    heartbeat ▶ its lease and its record live on, what it holds stays its own; control requests it missed
    sweep    ──▶ what any worker does for all
    wait     ──▶ watch:    the queues, this worker's channel

A call whose answer was lost is repeated as it was, with its sequence number: the scripts answer the same again. So what
is to be told waits in the outbox until the answer is there, and a claim is asked for again until it is answered.
"""

from __future__ import annotations

import os
import platform
import random
import socket
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import BackendUnavailable, ConfigError, StoreFull
from taskq.executors.rq.claims import read_claim
from taskq.executors.rq.connection import RedisError, as_text
from taskq.executors.rq.keys import FIELDS
from taskq.executors.rq.notifications import Notifications, seal_of
from taskq.executors.rq.outbox import AT_ONCE, UNKNOWN, IdleWorker, Outbox, names
from taskq.executors.rq.records import whole_number
from taskq.executors.rq.scripts import calls_of
from taskq.log import get_logger
from taskq.serving import DEFAULT, RANDOM, QueueOrder
from taskq.store import ControlRequest, PollResult, Remains, WorkerSession

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskq.executors.rq.claims import HeldJob
    from taskq.executors.rq.client import Backend
    from taskq.executors.rq.scripts import Script
    from taskq.store import Claim, JobOutcome, ProgressUpdate, WorkerRecord

__all__ = ["RQSession"]

log = get_logger("taskq.redis")

#: The scripts of a worker: its user must be allowed all that they call.
OF_WORKERS: Final = ("join", "leave", "claim", "begin", "finish", "note", "renew", "remains", "sweep")

#: How many times the time between two renewals a worker may be handed jobs after the last one.
PARKED: Final = 1.5

#: What a claim says of each queue while `rq suspend` holds.
SUSPENDED: Final = 3

#: Seconds by which a renewal may come late. Beyond them Redis may have been away, and others could not renew either:
#: then nobody is taken for dead for one lease more.
GRACE: Final = 3.0


class RQSession(WorkerSession):
    """See the module's text. Not for two threads at once."""

    def __init__(self, store: Backend, record: WorkerRecord) -> None:
        self._store = store
        self._scripts = store.address.scripts
        #: What carries its calls.
        self.client = store.client
        self._record = record
        #: The jobs that it has, by their tokens.
        self.held: dict[str, HeldJob] = {}
        self._order = QueueOrder(record.queues, record.serving.strategy)
        self._sequence = count(1)
        self._nonce = os.urandom(8).hex()
        self._claiming: tuple[str, str, int, Any] | None = None  # sequence, base, want, registration
        self._idle = IdleWorker(store.heartbeat_every * PARKED)
        self._given: list[Claim] = []  # handed over, until the loop has them
        self._control_requests: list[ControlRequest] = []
        self._stopped: set[str] = set()
        #: What it has to tell.
        self.outbox = Outbox(store, record, self.held, self._stopped, self._sequence)
        self._needs_work = False
        self._suspended = False
        self._at_once = False
        self._gap = store.heartbeat_every + GRACE
        self._trusted_at = monotonic() + self._gap
        self._reap_at = 0.0
        self._join(take_over=False)
        #: What it hears between two polls.
        self.notifications = Notifications(store, record)
        self.notifications.listen()

    # -- signing on

    def _join(self, *, take_over: bool) -> None:
        record, fields = self._record, self._fields(self._record, birth=True)
        answer = self.client.call(
            self._scripts.join,
            [
                *(record.name, self._store.lease, fields, list(record.queues), int(take_over), self._nonce),
                calls_of(*OF_WORKERS),
            ],
        )
        self._idle.answered(registered=False)
        if not answer.startswith(b"taken"):
            if not take_over:
                self.client.call(self._scripts.leave, [record.name, 1])
                self._join(take_over=True)
            return
        _, host, pid = [*as_text(answer).split(" ", 2), "", ""][:3]
        if host == socket.gethostname() and not _is_alive(whole_number(pid.encode(), 0)):
            self.client.call(self._scripts.leave, [record.name, 1])
            self._join(take_over=True)
            return
        raise ConfigError(
            f"a worker named {record.name!r} is running already (process {pid} on {host}): choose another --name"
        )

    def _fields(self, record: WorkerRecord, *, birth: bool = False) -> list[Any]:
        state = "busy" if self.held else "suspended" if self._suspended else "idle"
        fields = [
            FIELDS["state"],
            state,
            FIELDS["processes"],
            record.processes,
            FIELDS["stopping"],
            int(record.stopping),
        ]
        if birth:
            fields += [
                *(
                    FIELDS["pid"],
                    record.pid,
                    FIELDS["hostname"],
                    record.host,
                    FIELDS["ip_address"],
                    self.client.own_address(),
                ),
                *(FIELDS["version"], f"taskq {record.version}".strip()),
                *(FIELDS["python_version"], platform.python_version()),
            ]
        return fields

    # -- telling and taking

    def poll(self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int) -> PollResult:
        outbox = self.outbox
        self._at_once = False
        self._take_handed()
        idle = bool(outcomes) and self._tell(outcomes, want)
        if updates:
            outbox.add_updates(updates)
        self._tell_early()
        self._trip(want, asks=not self._given and not (idle and self._idle.base))
        claims, self._given = self._given, []
        control_requests, self._control_requests = self._control_requests, []
        control_requests += self.notifications.control_requests(self._stopped, self.held)
        fenced, outbox.fenced = outbox.fenced, []
        return PollResult(claims=claims, control_requests=control_requests, fenced=fenced)

    def _tell(self, outcomes: Sequence[JobOutcome], want: int) -> bool:
        """Have outcomes told; return whether the worker is idle then, as far as it knows.

        Who tells something, and knows that the queues are empty, registers by the same script and need not look there.
        """
        fresh = self.outbox.fresh(outcomes)
        if self._order.takes_turns:
            self._order.told(fresh)
        known = self._needs_work and self._claiming is None and not self._given
        idle = bool(fresh) and want > 0 and known and self.notifications.is_quiet
        free = self._record.processes - len(self.held) + len(fresh)
        self.outbox.add(fresh, self._idle.ask(free) if idle and not self._idle.base else 0)
        return idle

    def _tell_early(self) -> None:
        """Tell all but the last of what is to be told, when there is more of it than one round trip should carry."""
        while len(self.outbox.telling) > 1:
            self.outbox.answered_early(self._reached(self.outbox.early())[0])

    def _trip(self, want: int, *, asks: bool) -> None:
        """Tell what is to be told, and ask for work."""
        requests = self.outbox.requests() if self.outbox.telling or self.outbox.noting else []
        told = len(requests)
        claiming = self.claim_request(want) if asks else None
        if claiming is not None:
            requests.append((self._scripts.claim, claiming))
        if not requests:
            return
        replies = self._reached(requests)
        if told:
            self.outbox.answered(replies[:told])
        registered, self.outbox.registered = self.outbox.registered, None
        if registered is not None and registered != 1:
            self._look_again()
            if registered != UNKNOWN:
                self._idle.answered(registered=False)
        if claiming is not None:
            self._given += self._claimed(replies[-1])

    def _reached(self, requests: Sequence[tuple[Script, bytes]]) -> list[Any]:
        """Send it all; what Redis refuses of it stays to be sent again."""
        try:
            replies = self.client.exchange(requests, partial=True)
        except BackendUnavailable:
            self._reap_at = monotonic() + self._store.lease
            raise
        for (script, command), reply in zip(requests, replies, strict=True):
            if isinstance(reply, RedisError):
                error = self.client.mapped(reply, (script, command))
                at_limit = isinstance(error, StoreFull)
                damaged = "WRONGTYPE" in str(reply)[:200]  # perhaps one job's key alone: its outcome is told by itself
                if (isinstance(error, BackendUnavailable) and not damaged) or (
                    script is self._scripts.claim and not at_limit
                ):
                    raise error
        return replies

    def _look_again(self) -> None:
        """Have the next poll ask for work, and soon."""
        self.notifications.stir()
        self._at_once = True

    # -- claims

    @property
    def _refuser(self) -> str:
        """The name under which jobs are left to others, once this worker has refused one; until then, none."""
        return self._nonce if self.outbox.has_refused else ""

    def _take_handed(self) -> None:
        """Take in the jobs that were handed over."""
        for message in self.notifications.handed() if self.notifications.has_handed else ():
            try:
                found = self._idle.take(message)
                if found is not None:
                    self._at_once = True  # there may be room for more
                    self._given.append(self._claim(found[1], found[0]))
            except Exception as error:  # noqa: BLE001  # whatever somebody publishes there: a real job comes back by renew
                log.warning("message_refused", worker=self._record.name, error=f"{type(error).__name__}: {error}")

    def claim_request(self, want: int) -> bytes | None:
        """Return the command that claims up to so many jobs; None: there is nothing to ask for."""
        if self._claiming is None:
            held = len(self.held) - self.outbox.outcomes
            registration = self._idle.ask(min(want, self._record.processes - held))
            if want <= 0 and registration == 0:
                return None
            self._claiming = (str(next(self._sequence)), os.urandom(12).hex(), min(want, AT_ONCE), registration)
        sequence, base, wanted, registration = self._claiming
        argument = [*(self._record.name, sequence, base, wanted, self._record.queues, "", registration, self._refuser)]
        argument.append(self._turns())
        return self._scripts.claim.command(argument)

    def _claimed(self, reply: Any) -> list[Claim]:
        self._needs_work = False
        if isinstance(reply, RedisError):  # at the limit of memory: nothing was taken
            self._claiming = None
            self.notifications.learn(b"0", b"", [1] * len(self._record.queues))
            return []
        wanted, self._claiming = self._claiming[2] if self._claiming else 0, None
        if reply[0] == b"gone":
            self._join(take_over=True)
            self._at_once = True
            return []
        _, stamp, due, jobs, closed, registered = reply
        self.notifications.learn(stamp, due, closed)
        self._suspended = SUSPENDED in closed
        self._idle.answered(registered=registered == 1)
        self._needs_work = len(jobs) < wanted
        claims = [self._claim(entry, stamp.decode()) for entry in jobs]
        if self._order.takes_turns:
            self._order.took(claims)
        return claims

    def _turns(self) -> Any:
        """Return what the claim script is told of the order of queues."""
        if self._order.strategy == DEFAULT:
            return 0
        drawn = self._order.strategy == RANDOM
        return [self._order.first + 1, random.randrange(1, 2**31) if drawn else 0]

    def _claim(self, entry: list[Any], since: str) -> Claim:
        claim, held = read_claim(self._store, self._record, entry, since)
        self.held[claim.token] = held
        if claim.foreign is not None:
            self.notifications.among_stock_clients = True
        return claim

    def claim_one(self, job_id: str) -> Claim | None:
        sequence, base = str(next(self._sequence)), os.urandom(12).hex()
        argument = [self._record.name, sequence, base, 1, list(self._record.queues), job_id, 0, self._refuser, 0]
        reply = self.client.call(self._scripts.claim, argument)
        if reply[0] == b"gone":
            self._join(take_over=True)
            reply = self.client.call(self._scripts.claim, argument)
        jobs = reply[3]
        return self._claim(jobs[0], reply[1].decode()) if jobs else None

    def begin(self, claims: Sequence[tuple[str, str]]) -> list[str]:
        known = [(job_id, token, self.held[token].queue) for job_id, token in claims if token in self.held]
        lost = names(self.client.call(self._scripts.begin, [[part for row in known for part in row]]))
        return lost + [job_id for job_id, token in claims if token not in self.held]

    # -- staying alive

    def heartbeat(self, record: WorkerRecord, held: Collection[tuple[str, str]]) -> list[str]:
        self._record = record
        by_queue: dict[str, list[str]] = {}
        missing = []
        for job_id, token in held:
            known = self.held.get(token)
            if known is None:
                missing.append(job_id)
            else:
                by_queue.setdefault(known.queue, []).extend((job_id, token))
        rows: list[Any] = [part for entry in by_queue.items() for part in entry]
        mine = [f"{known.id}:{known.token}" for known in self.held.values()]
        coming = [base for base in (self._idle.base, self._claiming and self._claiming[1]) if base]
        head = [record.name, self._store.lease, self._fields(record), rows]
        argument = [*head, mine, coming, self._idle.ask(0), record.queues]
        try:
            reply = self.client.call(self._scripts.renew, argument)
            if reply[0] == b"gone":
                self._join(take_over=True)
                reply = self.client.call(self._scripts.renew, argument)
        except BackendUnavailable:
            self._reap_at = monotonic() + self._store.lease
            raise
        now = monotonic()
        if now > self._trusted_at:
            self._reap_at = now + self._store.lease
        self._trusted_at = now + self._gap
        lost = missing + names(reply[1])
        control_requests = reply[2]
        if self._idle.base and reply[3] == 0:
            self._look_again()
        for n in range(0, len(control_requests), 2):
            how, _, seal = control_requests[n + 1].partition(b" ")
            self._control_request(as_text(control_requests[n]), kill=how == b"kill", seal=seal_of(seal))
        return lost

    def _control_request(self, job_id: str, *, kill: bool, seal: bytes) -> None:
        if kill or job_id not in self._stopped:
            self._control_requests.append(ControlRequest(job_id=job_id, kill=kill, seal=seal))

    def remains(self) -> Remains:
        argument = [list(self._record.queues), self._refuser]
        busy, scheduled, again, first, last = self.client.call(self._scripts.remains, argument)
        return Remains(busy=bool(busy), scheduled=scheduled, again=again, first=float(first), last=float(last))

    def run_maintenance(self) -> int:
        """Do it in one script; workers are taken for dead only when Redis and this worker were there for one lease."""
        reap = monotonic() >= self._reap_at and self._redis_is_settled()
        returned: int = self.client.call(self._scripts.sweep, [int(reap), list(self._record.queues)])
        return returned

    def _redis_is_settled(self) -> bool:
        """Return whether Redis has been up for one lease: before, leases ran out because nobody could renew them."""
        for line in self.client.command("INFO", "server").splitlines():
            name, _, value = line.partition(b":")
            if name == b"uptime_in_seconds":
                return int(value) > self._store.lease
        return True

    def wait(self, timeout: float, wake_fd: int) -> None:
        if self._control_requests or self._at_once:
            self._at_once = False
            return
        self.notifications.wait(timeout, wake_fd, needs_work=self._needs_work)

    def leave(self) -> None:
        self.notifications.close()
        self.held.clear()
        self.client.call(self._scripts.leave, [self._record.name, 0])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

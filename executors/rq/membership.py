"""A worker's place among RQ's workers: one entry with many executions.

    exchange ──▶ one round trip:  finish script (what became of jobs) · note script · claim script (new ones)
                 none, for a job that was handed over (see parking)
    renew    ──▶ its lease and its record live on, what it holds stays its own; wishes that it missed
    sweep    ──▶ what any worker does for all
    wait     ──▶ watch:    the queues, this worker's channel

A call whose answer was lost is repeated as it was, with its sequence number: the scripts answer the same again. So
`exchange` first sends once more what it does not know the answer of, then what is new.
"""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from executors.rq.claim import read_claim
from executors.rq.layout import FIELDS
from executors.rq.outcome import progress_text, unknown, verdict_row
from executors.rq.parking import Parking
from executors.rq.watch import Watch
from executors.rq.wire import RedisError
from taskq.errors import BackendUnavailable, ConfigError, StoreFull
from taskq.log import get_logger
from taskq.states import State
from taskq.store import Exchange, Membership, Wish

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from executors.rq.home import Home
    from executors.rq.outcome import Held
    from executors.rq.scripts import Script
    from taskq.store import Claim, Note, Verdict, WorkerRecord

__all__ = ["RQMembership"]

log = get_logger("taskq.redis")

#: Verdicts, notes and claims in one script at most: it holds up everybody else.
AT_ONCE: Final = 500

#: How many times the time between two renewals a worker may be handed jobs after the last one.
PARKED: Final = 1.5

#: What a finish that was repeated says of the parking: it may be over because a job was handed over.
UNKNOWN: Final = 2

#: Seconds by which a renewal may come late. Beyond them Redis may have been away, and others could not renew either:
#: then nobody is taken for dead for one lease more.
GRACE: Final = 3.0


@dataclass(slots=True, eq=False)
class _Telling:
    """A finish whose answer is not known yet."""

    command: bytes
    verdicts: Sequence[Verdict]
    #: Whether it asks to be parked, too.
    parks: bool


@dataclass(slots=True, eq=False)
class _Noting:
    """Notes whose answer is not known yet."""

    command: bytes
    notes: Sequence[Note]


class RQMembership(Membership):
    """See the module's text. Not for two threads at once."""

    def __init__(self, store: Home, record: WorkerRecord) -> None:
        self._store = store
        self._scripts = store.address.scripts
        self._line = store.line
        self._record = record
        self._held: dict[str, Held] = {}  # by token
        self._sequence = count(1)
        self._nonce = os.urandom(8).hex()
        self._telling: list[_Telling] = []
        self._noting: list[_Noting] = []
        self._claiming: tuple[str, str, int, Any] | None = None  # sequence, base, want, parking
        self._parking = Parking(store.renew_every * PARKED)
        self._given: list[Claim] = []  # handed over, until the loop has them
        self._wishes: list[Wish] = []
        self._stopped: set[str] = set()
        self._hungry = False
        self._at_once = False
        self._gap = store.renew_every + GRACE
        self._trusted_at = monotonic() + self._gap
        self._reap_at = 0.0
        self._join(take_over=False)
        self._watch = Watch(store, record)

    # -- signing on

    def _join(self, *, take_over: bool) -> None:
        record, fields = self._record, self._fields(self._record, birth=True)
        answer = self._line.call(
            self._scripts.join,
            [*(record.name, self._store.lease, fields, list(record.queues), int(take_over)), self._nonce],
        )
        self._parking.answered(parked=False)
        if not answer.startswith(b"taken"):
            if not take_over:
                self._line.call(self._scripts.leave, [record.name, 1])
                self._join(take_over=True)
            return
        _, host, pid = answer.decode().split(" ", 2)
        if host == socket.gethostname() and pid.isdecimal() and not _is_alive(int(pid)):
            self._line.call(self._scripts.leave, [record.name, 1])
            self._join(take_over=True)
            return
        raise ConfigError(
            f"a worker named {record.name!r} is running already (process {pid} on {host}): choose another --name"
        )

    def _fields(self, record: WorkerRecord, *, birth: bool = False) -> list[Any]:
        state = "busy" if self._held else "idle"
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
                *(FIELDS["pid"], record.pid, FIELDS["hostname"], record.host, FIELDS["ip_address"], "unknown"),
                *(FIELDS["version"], f"taskq {record.version}".strip()),
                *(FIELDS["python_version"], platform.python_version()),
            ]
        return fields

    # -- telling and taking

    def exchange(self, verdicts: Sequence[Verdict], notes: Sequence[Note], want: int) -> Exchange:
        fenced: list[str] = []
        self._settle(fenced)
        seen = {verdict.token for telling in self._telling for verdict in telling.verdicts}
        fresh = [verdict for verdict in verdicts if verdict.token not in seen] if seen else verdicts
        fresh = _front_last(fresh)
        self._at_once = False
        self._take_handed()
        # Who tells something, and knows that the queues are empty, parks by the same script and need not look at them
        known = self._hungry and self._watch.is_quiet and not self._claiming
        idle = bool(fresh) and want > 0 and known and not self._given
        for first in range(0, len(fresh), AT_ONCE):
            self._telling.append(self._packed(fresh[first : first + AT_ONCE], parks=idle))
        claims = self._trip(fenced, notes, want, asks=not self._given and not (idle and self._parking.base))
        claims, self._given = self._given + claims, []
        wishes, self._wishes = self._wishes, []
        wishes += self._watch.wishes(self._stopped, self._held)
        return Exchange(claims=claims, wishes=wishes, fenced=fenced)

    def _settle(self, fenced: list[str]) -> None:
        """Tell all but the last of what is to be told, when there is more of it than one round trip should carry."""
        while len(self._telling) > 1:
            reply = self._reached([(self._scripts.finish, self._telling[0].command)])[0]
            self._told(self._telling[0], reply, fenced)

    def _packed(self, verdicts: Sequence[Verdict], *, parks: bool = False) -> _Telling:
        rows: list[list[Any]] = []
        seconds = 0.0
        for verdict in verdicts:
            held = self._held.get(verdict.token)
            rows.append(verdict_row(verdict, held or unknown(verdict), stopped=verdict.id in self._stopped))
            seconds += verdict.seconds
        left = len(self._held) - len(verdicts)
        parking = self._parking.ask(self._record.processes - left) if parks and not self._parking.base else 0
        head = [self._record.name, str(next(self._sequence)), rows, "busy" if left > 0 else "idle", seconds]
        return _Telling(self._scripts.finish.command([*head, parking, self._record.queues]), verdicts, parking != 0)

    def _trip(self, fenced: list[str], notes: Sequence[Note], want: int, *, asks: bool) -> list[Claim]:
        self._settle(fenced)
        self._add_notes(notes)
        noting, told = list(self._noting), list(self._telling)
        requests: list[tuple[Script | None, bytes]] = [(self._scripts.note, entry.command) for entry in noting]
        requests += [(self._scripts.finish, telling.command) for telling in told]
        claiming = self._claim_request(want) if asks else None
        if claiming is not None:
            requests.append((self._scripts.claim, claiming))
        if not requests:
            return []
        replies = self._reached(requests)
        for entry, late in zip(noting, replies, strict=False):
            self._noted(entry, late, fenced)
        for telling, reply in zip(told, replies[len(noting) :], strict=False):
            self._told(telling, reply, fenced)
        return [] if claiming is None else self._claimed(replies[-1])

    def _reached(self, requests: list[tuple[Script | None, bytes]]) -> list[Any]:
        """Send it all; what Redis refuses of it stays to be sent again."""
        try:
            replies = self._line.exchange(requests, partial=True)
        except BackendUnavailable:
            self._reap_at = monotonic() + self._store.lease
            raise
        for (script, _), reply in zip(requests, replies, strict=True):
            if isinstance(reply, RedisError):
                error = self._line.mapped(reply)
                at_limit = isinstance(error, StoreFull)
                if isinstance(error, BackendUnavailable) or (script is self._scripts.claim and not at_limit):
                    raise error
        return replies

    def _told(self, telling: _Telling, reply: Any, fenced: list[str]) -> None:
        """Take in the answer to a finish: what came too late, and whether this worker is parked."""
        self._telling.remove(telling)
        if isinstance(reply, RedisError):
            reply = [self._tell_each(telling, reply), UNKNOWN]
        late, parked = reply
        for verdict in telling.verdicts:
            self._held.pop(verdict.token, None)
            self._stopped.discard(verdict.id)
        fenced += _names(late)
        if telling.parks and parked != 1:
            self._look_again()
            if parked != UNKNOWN:
                self._parking.answered(parked=False)

    def _look_again(self) -> None:
        """Have the next exchange ask for work, and soon."""
        self._watch.stir()
        self._at_once = True

    def _tell_each(self, telling: _Telling, error: Exception) -> list[bytes]:
        """Tell verdicts one by one, as Redis could not carry out all of them; return the ids of those it cannot."""
        log.error("redis_refuses", worker=self._record.name, jobs=len(telling.verdicts), error=str(error))
        late: list[bytes] = []
        for verdict in telling.verdicts:
            command = self._packed([verdict]).command
            reply = self._line.exchange([(self._scripts.finish, command)], partial=True)[0]
            late += [verdict.id.encode()] if isinstance(reply, RedisError) else reply[0]
        return late

    def _add_notes(self, notes: Sequence[Note]) -> None:
        """Pack the notes that are not on their way yet."""
        sent = {id(note) for noting in self._noting for note in noting.notes}
        fresh = [note for note in notes if id(note) not in sent and note.token in self._held]
        for first in range(0, len(fresh), AT_ONCE):
            some = fresh[first : first + AT_ONCE]
            argument = [self._record.name, str(next(self._sequence)), [self._note_row(note) for note in some]]
            self._noting.append(_Noting(self._scripts.note.command(argument), some))

    def _note_row(self, note: Note) -> list[Any]:
        held = self._held[note.token]
        progress = "" if note.progress is None else progress_text(note.progress)
        return [note.id, note.token, held.queue, progress, note.meta or b"", note.log]

    def _noted(self, noting: _Noting, late: Any, fenced: list[str]) -> None:
        self._noting.remove(noting)
        if not isinstance(late, RedisError):  # else at the limit of memory: what was said is lost
            fenced += _names(late)

    # -- claims

    def _take_handed(self) -> None:
        """Take in the jobs that were handed over."""
        for message in self._watch.handed():
            found = self._parking.take(message)
            if found is not None:
                self._given.append(self._claim(found[1], found[0]))
                self._at_once = True  # there may be room for more

    def _claim_request(self, want: int) -> bytes | None:
        if self._claiming is None:
            held = len(self._held) - sum(len(telling.verdicts) for telling in self._telling)
            parking = self._parking.ask(min(want, self._record.processes - held))
            if want <= 0 and parking == 0:
                return None
            self._claiming = (str(next(self._sequence)), os.urandom(12).hex(), min(want, AT_ONCE), parking)
        sequence, base, wanted, parking = self._claiming
        queues = list(self._record.queues)
        return self._scripts.claim.command([self._record.name, sequence, base, wanted, queues, "", parking])

    def _claimed(self, reply: Any) -> list[Claim]:
        self._hungry = False
        if isinstance(reply, RedisError):  # at the limit of memory: nothing was taken
            self._claiming = None
            self._watch.learn(b"0", b"", [1] * len(self._record.queues))
            return []
        wanted, self._claiming = self._claiming[2] if self._claiming else 0, None
        if reply[0] == b"gone":
            self._join(take_over=True)
            self._at_once = True
            return []
        _, stamp, due, jobs, closed, parked = reply
        self._watch.learn(stamp, due, closed)
        self._parking.answered(parked=parked == 1)
        self._hungry = len(jobs) < wanted
        return [self._claim(entry, stamp.decode()) for entry in jobs]

    def _claim(self, entry: list[Any], since: str) -> Claim:
        claim, held = read_claim(self._store.address, self._record.name, entry, since)
        self._held[claim.token] = held
        return claim

    def claim_one(self, job_id: str) -> Claim | None:
        sequence, base = str(next(self._sequence)), os.urandom(12).hex()
        argument = [self._record.name, sequence, base, 1, list(self._record.queues), job_id, 0]
        reply = self._line.call(self._scripts.claim, argument)
        if reply[0] == b"gone":
            self._join(take_over=True)
            reply = self._line.call(self._scripts.claim, argument)
        jobs = reply[3]
        return self._claim(jobs[0], reply[1].decode()) if jobs else None

    # -- staying alive

    def renew(self, record: WorkerRecord, held: Collection[tuple[str, str]]) -> list[str]:
        self._record = record
        by_queue: dict[str, list[str]] = {}
        missing = []
        for job_id, token in held:
            known = self._held.get(token)
            if known is None:
                missing.append(job_id)
            else:
                by_queue.setdefault(known.queue, []).extend((job_id, token))
        rows: list[Any] = [part for entry in by_queue.items() for part in entry]
        mine = [f"{known.id}:{known.token}" for known in self._held.values()]
        coming = [base for base in (self._parking.base, self._claiming and self._claiming[1]) if base]
        head = [record.name, self._store.lease, self._fields(record), rows]
        argument = [*head, mine, coming, self._parking.ask(0), record.queues]
        try:
            reply = self._line.call(self._scripts.renew, argument)
            if reply[0] == b"gone":
                self._join(take_over=True)
                reply = self._line.call(self._scripts.renew, argument)
        except BackendUnavailable:
            self._reap_at = monotonic() + self._store.lease
            raise
        now = monotonic()
        if now > self._trusted_at:
            self._reap_at = now + self._store.lease
        self._trusted_at = now + self._gap
        lost = missing + _names(reply[1])
        wishes = reply[2]
        if self._parking.base and reply[3] == 0:
            self._look_again()
        for n in range(0, len(wishes), 2):
            self._wish(wishes[n].decode(), kill=wishes[n + 1] == b"kill")
        return lost

    def _wish(self, job_id: str, *, kill: bool) -> None:
        if kill or job_id not in self._stopped:
            self._wishes.append(Wish(job_id=job_id, kill=kill))

    def sweep(self) -> int:
        """Do it in one script; workers are taken for dead only when Redis and this worker were there for one lease."""
        reap = monotonic() >= self._reap_at and self._redis_is_settled()
        returned: int = self._line.call(self._scripts.sweep, [int(reap)])
        return returned

    def _redis_is_settled(self) -> bool:
        """Return whether Redis has been up for one lease: before, leases ran out because nobody could renew them."""
        for line in self._line.command("INFO", "server").splitlines():
            name, _, value = line.partition(b":")
            if name == b"uptime_in_seconds":
                return int(value) > self._store.lease
        return True

    def wait(self, timeout: float, wake_fd: int) -> None:
        if self._wishes or self._at_once:
            self._at_once = False
            return
        self._watch.wait(timeout, wake_fd, hungry=self._hungry)

    def leave(self) -> None:
        self._watch.close()
        self._held.clear()
        self._line.call(self._scripts.leave, [self._record.name, 0])


def _names(ids: list[bytes]) -> list[str]:
    return [job_id.decode("utf-8", "surrogateescape") for job_id in ids]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _front_last(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """Put what goes back to the front of its queue last, and the first of it at the very end: each is pushed before."""
    returned = [verdict for verdict in verdicts if verdict.state is State.QUEUED]
    if not returned[1:]:
        return verdicts
    return [*(verdict for verdict in verdicts if verdict.state is not State.QUEUED), *reversed(returned)]

"""The store of durable jobs in Redis, as ordinary RQ jobs.

    RQStore   put · get · cancel · retry · remove · log · pause · resume     one script each, see lua/
              list · queues · workers · doctor                               inventory, doctor: plain reads
              subscribe() ──▶ subscription        join() ──▶ session

What RQ's classes read is kept as they want it; what they have no place for stands beside it. Which key and field is
which says `keys`.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import JobExists, QueueFull
from taskq.executors.rq import doctor, queries
from taskq.executors.rq.client import Client
from taskq.executors.rq.connection import Address, as_text
from taskq.executors.rq.keys import FIELDS
from taskq.executors.rq.records import LOOKED_UP, STATE_OF, data_of, read_record
from taskq.executors.rq.scripts import calls_of
from taskq.executors.rq.session import RQSession
from taskq.executors.rq.subscription import RQSubscription
from taskq.store import NO_SEALS, Store

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from taskq.executors.rq.scripts import Script
    from taskq.options import JobOptions
    from taskq.states import State
    from taskq.store import Finding, JobQuery, JobRecord, NewJob, QueueRecord, WorkerRecord, WorkerSession

__all__ = ["RQStore"]

#: Jobs written by one script: a script holds up everybody else, 250 jobs for about 1.5 ms.
PUT_AT_ONCE: Final = 250

#: Ids looked at by one script.
LOOK_AT_ONCE: Final = 1000

#: Seconds that ended jobs are kept where nobody said otherwise.
RESULT_TTL: Final = 86_400
FAILURE_TTL: Final = 7 * 86_400

_TASK: Final = FIELDS["task"]

#: What the put script's answer begins with when a job was refused; no id has a colon.
TAKEN: Final = b"taken:"

#: RQ's word for no limit.
NO_TIMEOUT: Final = "-1"

#: Retry intervals written for stock workers at most; RQ uses the first of them for what is before.
INTERVALS_MAX: Final = 32


class RQStore(Store):
    """Keep jobs in the Redis of a URL: redis://, rediss:// or unix://.

    `redis://one,two:26380/0?sentinel=NAME`: the hosts are Sentinels, which tell where the master of this name is; they
    have `?sentinel_username=` and `?sentinel_password=` of their own.
    `?prefix=` puts another word in front of all keys, RQ's too: its tools find them with RQ_KEY_PREFIX set to it.
    `?allow_pickle=1` lets workers run jobs of stock RQ whose arguments are pickled: whoever can write to this Redis can
    then run any code in the workers. `?allow_callbacks=1` lets them run callbacks and webhooks of such jobs.
    `?rq_commands=stop,shutdown` lists which of RQ's commands workers obey: all, but none where signatures are demanded,
    as theirs are not signed. There `?allow_unsigned_rq=1` lets jobs of stock RQ be run all the same.

    Raises:
        ConfigError: the URL has something unknown or senseless in it.
    """

    #: RQ's tools show labels, as `description`, to whoever may look.
    labels = "types"
    runs_foreign = True

    def __init__(self, url: str) -> None:
        self.address = Address(url)
        self.url = self.address.url
        self.client = Client(self.address)
        self.redis_keys = self.address.keys
        self.commands = self.address.commands
        self.takes_unsigned = self.address.allow_unsigned
        self._scripts = self.address.scripts
        self._constants: dict[JobOptions, tuple[Any, ...]] = {}
        self._latest: tuple[JobOptions | None, tuple[Any, ...]] = (None, ())
        #: The commands that the first put sees to it that this user may call, so that none stops half way.
        self._needed: list[str] | None = calls_of("put")

    def __repr__(self) -> str:
        return f"<RQStore {self.url}>"

    # -- jobs

    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        """Keep jobs; more than 250 go in several steps, and are taken back when one of them is refused.

        When Redis goes away between two steps, the first ones stand: repeat the call.
        """
        nonce = os.urandom(8).hex()
        script = self._scripts.put
        if not jobs:
            return []
        if len(jobs) <= PUT_AT_ONCE:
            steps, replies = [jobs], [self.client.call(script, self._put_argument(jobs, reply_to, nonce))]
        else:
            steps = [jobs[first : first + PUT_AT_ONCE] for first in range(0, len(jobs), PUT_AT_ONCE)]
            replies = self.client.stream(script, (self._put_argument(step, reply_to, nonce) for step in steps))
        kept: list[str] = []
        refused: Exception | None = None
        for step, stand in zip(steps, replies, strict=True):
            if stand == 0:
                kept += [job.id for job in step]
            elif isinstance(stand, Exception):
                refused = refused or stand
            elif stand[0] == TAKEN:
                refused = refused or _taken(stand)
            else:
                kept += map(as_text, stand)
        if refused is None:
            self._needed = None
            return kept
        if isinstance(refused, JobExists | QueueFull):
            own = {job.id for job in jobs}
            self._take_back([job_id for job_id in kept if job_id in own])
        raise refused

    def _put_argument(self, jobs: Sequence[NewJob], reply_to: str, nonce: str) -> list[Any]:
        """Return what the put script takes for one step."""
        constants: dict[int, tuple[Any, ...]] = {}
        packed = []
        for job in jobs:
            options = job.options
            known = constants.get(id(options))
            if known is None:
                known = constants[id(options)] = self._constants_of(options)
            packed.append(_packed(job, known, reply_to))
        rare = any(entry[3] != 0 for entry in packed) or len({job.id for job in jobs}) != len(jobs)
        return [nonce, int(rare), packed, self._needed] if self._needed else [nonce, int(rare), packed]

    def _take_back(self, ids: list[str]) -> None:
        """Forget what an earlier step of a refused put has written."""
        for first in range(0, len(ids), LOOK_AT_ONCE):
            self.client.call(self._scripts.remove, [ids[first : first + LOOK_AT_ONCE]])

    def _constants_of(self, options: JobOptions) -> tuple[Any, ...]:
        """Return what all jobs with these options have in common: mostly they are those of the last put."""
        latest, known = self._latest
        if latest is not options:
            known = self._constants.get(options) or self._remember(options)
            self._latest = options, known
        return known

    def _remember(self, options: JobOptions) -> tuple[Any, ...]:
        """Work out once what all jobs with these options have in common: few programs use many sets of options."""
        if len(self._constants) > 1000:  # noqa: PLR2004  # programs that make options of each job's own: begin anew
            self._constants.clear()
        known = self._constants[options] = (_constant_fields(options), _rare_of(options))
        return known

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        records: list[JobRecord | None] = []
        for first in range(0, len(ids), LOOK_AT_ONCE):
            records += self._get_step(list(ids[first : first + LOOK_AT_ONCE]), payload=payload)
        return records

    def _get_step(self, ids: list[str], *, payload: bool) -> list[JobRecord | None]:
        fields = [*LOOKED_UP, FIELDS["data"]] if payload else LOOKED_UP
        found = self.client.call(self._scripts.get, [ids, fields, int(payload)])
        records: list[JobRecord | None] = []
        for job_id, entry in zip(ids, found, strict=True):
            if entry == 0:
                records.append(None)
                continue
            data = entry[0].pop() if payload else None
            records.append(read_record(job_id, entry, data, limit=self.max_bytes, payload=payload))
        return records

    def cancel(
        self, ids: Sequence[str], *, kill: bool = False, seals: Mapping[str, bytes] = NO_SEALS
    ) -> list[State | None]:
        states: list[State | None] = []
        how = "kill" if kill else "ask"
        for first in range(0, len(ids), LOOK_AT_ONCE):
            step = list(ids[first : first + LOOK_AT_ONCE])
            words = [f"{how} {b64encode(seals[job_id]).decode()}" for job_id in step] if seals else 0
            found = self.client.call(self._scripts.cancel, [step, how, words])
            states += [STATE_OF.get(status) for status in found]
        return states

    def retry(self, ids: Sequence[str]) -> list[bool]:
        return self._for_each(self._scripts.retry, ids)

    def remove(self, ids: Sequence[str]) -> list[bool]:
        return self._for_each(self._scripts.remove, ids)

    def _for_each(self, script: Script, ids: Sequence[str]) -> list[bool]:
        done: list[bool] = []
        for first in range(0, len(ids), LOOK_AT_ONCE):
            step = list(ids[first : first + LOOK_AT_ONCE])
            done += map(bool, self.client.call(script, [step]))
        return done

    def log(self, job_id: str, offset: int = 0) -> bytes:
        return bytes(self.client.command("GETRANGE", self.redis_keys.LOG + job_id, offset, -1))

    # -- queues and workers

    def queues(self) -> list[QueueRecord]:
        return queries.queues(self)

    def some_queues(self, most: int, first: Collection[str] = ()) -> tuple[list[QueueRecord], int]:
        return queries.some_queues(self, most, first)

    def workers(self) -> list[WorkerRecord]:
        return queries.workers(self)

    def pause(self, queue: str) -> None:
        self.client.command("SADD", self.redis_keys.PAUSED, queue)

    def resume(self, queue: str) -> None:
        self.client.commands([("SREM", self.redis_keys.PAUSED, queue), ("PUBLISH", self.redis_keys.WAKE, queue)])

    def doctor(self) -> list[Finding]:
        return doctor.findings(self)

    def demand_signatures(self) -> None:
        self.commands = self.commands or frozenset()

    def risks(self) -> list[Finding]:
        return doctor.risks(self.address)

    # -- for clients and workers

    def subscribe(self) -> RQSubscription:
        return RQSubscription(self)

    def join(self, record: WorkerRecord) -> WorkerSession:
        """Sign a worker on.

        Raises:
            ConfigError: another worker of this name is alive.
        """
        return RQSession(self, record)

    def close(self) -> None:
        self.client.close()

    def find(self, query: JobQuery) -> list[JobRecord]:
        """Return jobs, newest first as far as RQ's registries tell: ended ones are looked for by when they ended."""
        return queries.find_jobs(self, query)


def _packed(job: NewJob, known: tuple[Any, ...], reply_to: str) -> list[Any]:
    """Return what the put script takes for a job; `known` is what all jobs with its options have in common."""
    constant, rare = known
    fields = ["data", data_of(job.envelope), "description", job.label or job.task, _TASK, job.task, *constant]
    if reply_to:
        fields += (FIELDS["reply"], reply_to)
    if job.depends_on:
        rare = [*rare] if rare else [0] * 7
        rare[5] = list(job.depends_on)
        rare[6] = int(job.options.if_exists == "reject")
        fields += (FIELDS["dependency_id"], job.depends_on[0], FIELDS["dependency_ids"], json.dumps(job.depends_on))
        if FIELDS["rare"] not in constant:
            fields += (FIELDS["rare"], "1")
    return [job.id, job.options.queue, fields, rare]


def _taken(stand: list[bytes]) -> JobExists:
    holder, which = as_text(stand[1]), as_text(stand[2])
    what = "a job with this key has not ended" if which == "key" else "a job with this job_id is there"
    return JobExists(f"{what}: {holder}", job_id=holder)


def _constant_fields(options: JobOptions) -> list[Any]:
    """Return the fields that all jobs with these options share, RQ's own words first."""
    success, failure = RESULT_TTL, FAILURE_TTL
    if options.result_ttl is not None:
        success = failure = ceil(options.result_ttl)
    timeout = NO_TIMEOUT if options.timeout is None else str(ceil(options.timeout))
    fields: list[Any] = ["origin", options.queue, "timeout", timeout, "result_ttl", success, "failure_ttl", failure]
    if options.retry is not None and options.retry.max_retries > 0:
        fields += _retry_fields(options)
    if options.max_crashes != 3:  # noqa: PLR2004  # the default; scripts know it too
        fields += (FIELDS["max_crashes"], options.max_crashes)
    if options.priority:
        fields += (FIELDS["priority"], options.priority)
    if options.key is not None:
        fields += (FIELDS["key"], options.key)
    if options.expires is not None:
        fields += (FIELDS["expires_in"], f"{options.expires:g}")
    if options.key is not None or options.expires is not None:
        fields += (FIELDS["rare"], "1")
    return fields


def _retry_fields(options: JobOptions) -> list[Any]:
    """Return a retry policy as RQ says it, for its readers and for stock workers; ours go by the envelope."""
    retry = options.retry
    assert retry is not None  # noqa: S101  # the caller has looked
    count = min(retry.max_retries, INTERVALS_MAX)
    intervals = [ceil(retry.delay_before(number + 1, lambda: 1.0)) for number in range(count)]
    return [
        *("retries_left", retry.max_retries, "retry_intervals", json.dumps(intervals)),
        *(FIELDS["max_retries"], retry.max_retries),
    ]


def _rare_of(options: JobOptions) -> list[Any] | int:
    """Return {delay, at, priority, key, expires, needs, reject} for the put script, or 0 where there is none of it."""
    rare = [
        options.delay or 0,
        options.at.timestamp() if options.at is not None else 0,
        options.priority,
        options.key or 0,
        options.expires or 0,
        0,
        int(options.if_exists == "reject" and (options.key is not None or options.job_id is not None)),
    ]
    return rare if any(rare) else 0

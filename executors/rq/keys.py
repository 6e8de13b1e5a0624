"""Every Redis key and hash field that taskq reads or writes, in one table: RQ 3.0's own, and ours beside them.

    RQ's        rq:job:<id> ...            what `rq info`, `rq.job.Job` and a stock `rq worker` know
    ours        rq:tq:<word> ...           what RQ has no place for
                tq_<word>                  our fields in RQ's job and worker hashes; RQ leaves them alone

Lua scripts name all of these as `K_WORD` (a key, or the part before the id in it), `F_word` (a field), `S_WORD` (a
status) and `T_WORD` (a text); `scripts` puts the literals in their places. "rq" is RQ_KEY_PREFIX, or `?prefix=`.

Source: rq 3.0.0: job.py, queue.py, registry.py, executions.py, results.py, worker_registration.py, rate_limit.py.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from typing import TYPE_CHECKING, Final
from zlib import compress

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FIELDS", "STATUSES", "TEXTS", "Keys", "as_exc_string", "default_prefix"]

#: Seconds for which RQ's readers take a job in the wip registry, and its execution record, for alive; renewed every
#: 5 s. Far above our lease on purpose: RQ's own cleaning, which any `rq info` starts, fails what is past it, and our
#: sweep must have been there before.
ALIVE: Final = 300

#: Seconds for which is known what a dead worker held, until any other one puts that back: none may come for weeks.
HELD: Final = 2_592_000

#: Seconds for which RQ's readers take our worker for alive; renewed every 5 s.
WORKER_ALIVE: Final = 75

#: Seconds that outcomes wait for a subscription, and how many at most; beyond them it asks the jobs themselves.
REPLIES_KEPT: Final = 3600
REPLIES_MAX: Final = 10_000

#: Bytes of a result that travel to the subscription with the news; larger ones it fetches.
INLINE_MAX: Final = 131_072

#: What begins each key. `{p}` is the prefix.
KEYS: Final[Mapping[str, str]] = {
    # RQ's
    "JOB": "{p}:job:",  # <id>: hash; <id>:dependents: set of ids
    "DEPENDENCIES": "{p}:job::",  # <id>:dependencies: set of ids (RQ writes the two colons)
    "RESULTS": "{p}:results:",  # <id>: stream
    "QUEUES": "{p}:queues",  # set of queue keys
    "QUEUE": "{p}:queue:",  # <queue>: list of ids; <queue>:intermediate: list of ids that stock workers popped
    "WIP": "{p}:wip:",  # <queue>: zset of <id>:<execution>, by when it is taken for abandoned
    "FINISHED": "{p}:finished:",  # <queue>: zset of ids, by when they are forgotten
    "FAILED": "{p}:failed:",  # <queue>: the same
    "CANCELED": "{p}:canceled:",  # <queue>: zset of ids, by when they were cancelled
    "DEFERRED": "{p}:deferred:",  # <queue>: zset of ids, by when they came
    "SCHEDULED": "{p}:scheduled:",  # <queue>: zset of ids, by when they are due
    "READY": "{p}:ready:",  # <queue>: zset of ids that stock RQ was about to queue
    "EXECUTION": "{p}:execution:",  # <id>:<execution>: hash
    "EXECUTIONS": "{p}:executions:",  # <id>: zset of executions
    "WORKERS": "{p}:workers",  # set of worker keys
    "WORKERS_OF": "{p}:workers:",  # <queue>: set of worker keys
    "WORKER": "{p}:worker:",  # <name>: hash; <name>:executions: set of <id>:<execution>
    "SUSPENDED": "{p}:suspended",  # there: no worker starts jobs
    "CHANNEL": "{p}:pubsub:",  # <worker>: commands to it
    "RATE_KEYS": "{p}:rl-keys",  # set of rate limit keys
    "RATE": "{p}:rl:",  # <key>: hash; <key>:allowed, <key>:rate_limited: zsets of ids
    "GROUP": "{p}:group:",  # <name>: set of ids
    "GROUPS": "{p}:groups",  # set of the groups' names
    # ours
    "LEASES": "{p}:tq:leases",  # zset of our workers' names, by when they are taken for dead
    "PAUSED": "{p}:tq:paused",  # set of queue names
    "PRIORITIES": "{p}:tq:priorities:",  # <queue>: zset of waiting ids with a priority other than 0
    "KEY": "{p}:tq:key:",  # <key>: the id of the job that has it and has not ended
    "EXPIRIES": "{p}:tq:expiries",  # zset of ids of waiting jobs, by when they expire
    "REPLIES": "{p}:tq:replies:",  # <subscription>: list of outcomes
    "SUBSCRIBERS": "{p}:tq:ears:",  # <id>: set of further subscriptions that wait for this job
    "LOG": "{p}:tq:log:",  # <id>: what the job has printed and logged
    "WAKE": "{p}:tq:wake",  # channel: look at the queues again
    "IDLE": "{p}:tq:parked:",  # <queue>: set of our workers that had something free when they found it empty
    "HANDOFF": "{p}:tq:hand:",  # <worker>: channel: jobs that are handed to it
    "SCRATCH": "{p}:tq:scratch",  # a stream, for a moment inside a script
}

#: Fields, by the names that scripts and Python call them.
FIELDS: Final[Mapping[str, str]] = {
    # RQ's, in job hashes
    "data": "data",
    "created_at": "created_at",
    "enqueued_at": "enqueued_at",
    "started_at": "started_at",
    "ended_at": "ended_at",
    "last_heartbeat": "last_heartbeat",
    "origin": "origin",
    "description": "description",
    "status": "status",
    "timeout": "timeout",
    "result_ttl": "result_ttl",
    "failure_ttl": "failure_ttl",
    "worker_name": "worker_name",
    "meta": "meta",
    "dependency_id": "dependency_id",
    "dependency_ids": "dependency_ids",
    "allow_failures": "allow_dependency_failures",
    "at_front": "enqueue_at_front",
    "front_on_retry": "enqueue_at_front_on_retry",
    "retries_left": "retries_left",
    "retry_intervals": "retry_intervals",
    "number_of_retries": "number_of_retries",
    "repeats_left": "repeats_left",
    "repeat_intervals": "repeat_intervals",
    "rate_limit_key": "rate_limit_key",
    "rate_limit_concurrency": "rate_limit_concurrency",
    "group_id": "group_id",
    # ours, in job hashes
    "task": "tq_task",  # the task's name; a job without it is not ours
    "attempts": "tq_attempts",  # starts so far
    "crashes": "tq_crashes",  # of which the process or the worker died
    "suspect": "tq_suspect",  # a worker died that had it, and perhaps had begun it; see `store.blame`
    "told": "tq_told",  # the token under which it has begun, see WorkerSession.begin; after "-" one that tells it first
    "retries": "tq_retries",  # of which were retries after an error
    "max_crashes": "tq_max_crashes",  # where it is not 3
    "priority": "tq_priority",  # where it is not 0
    "reply": "tq_reply",  # the subscription that hears of its end
    "rare": "tq_rare",  # there: one of the next few is
    "key": "tq_key",  # its unique key
    "expires": "tq_expires",  # when it expires, in seconds since 1970
    "expires_in": "tq_expires_in",  # the option as it was given
    "refused": "tq_refused",  # when a worker first had no such task
    "left": "tq_left",  # the nonces of the workers that refused it
    "passed": "tq_passed",  # of a worker, then a queue: since when, and up to which job, it passes over it
    "why": "tq_why",  # why the last one did: as `failure`
    "due": "tq_due",  # when it may start, where it waits for other jobs first
    "nonce": "tq_nonce",  # the put that made it, where an id that is taken is an error
    "progress": "tq_progress",  # "done/total", "done/"
    "failure": "tq_failure",  # codec bytes of Failure.to_data(), or a letter and a word, see `record`
    "cancel": "tq_cancel",  # somebody wants it stopped: "ask" or "kill", and the signature of that
    "max_retries": "tq_max_retries",  # what `retries_left` began with
    # in worker hashes: RQ's, then ours
    "birth": "birth",
    "death": "death",
    "queues": "queues",
    "pid": "pid",
    "hostname": "hostname",
    "ip_address": "ip_address",
    "version": "version",
    "python_version": "python_version",
    "state": "state",
    "succeeded": "successful_job_count",
    "failed": "failed_job_count",
    "working_time": "total_working_time",
    "processes": "tq_processes",
    "stopping": "tq_stopping",
    "claim_seq": "tq_claim",  # the last claim, so that a repeated one gets the same jobs
    "finish_seq": "tq_finish",  # the last finish and its answer, so that a repeated one gets the same
    "idle": "tq_parked",  # what the token begins with of a job that may be handed to it, and until when
    "note_seq": "tq_note",  # the last notes, so that repeated ones add nothing
    # RQ's, in execution hashes and result streams
    "id": "id",
    "job_id": "job_id",
    "type": "type",
    "return_value": "return_value",
    "exc_string": "exc_string",
    "execution_id": "execution_id",
    "execution_started_at": "execution_started_at",
    "execution_ended_at": "execution_ended_at",
    "concurrency": "concurrency",
    # ours, in execution hashes
    "begun": "tq_begun",  # 1: its worker has told that it begins; workers older than `told` read it
}

#: RQ's words for where a job stands.
STATUSES: Final[Mapping[str, str]] = {
    "CREATED": "created",
    "QUEUED": "queued",
    "STARTED": "started",
    "FINISHED": "finished",
    "FAILED": "failed",
    "STOPPED": "stopped",
    "CANCELED": "canceled",
    "DEFERRED": "deferred",
    "SCHEDULED": "scheduled",
    "READY": "ready_to_enqueue",
    "RATE_LIMITED": "rate_limited",
}


def as_exc_string(text: str) -> str:
    """Return a text as RQ keeps tracebacks in result streams."""
    return b64encode(compress(text.encode("utf-8", "replace"), 1)).decode("ascii")


#: What RQ's readers see as the traceback of jobs that the store itself failed, and numbers that scripts share.
TEXTS: Final[Mapping[str, str]] = {
    "EXPIRED": as_exc_string("taskq.errors.JobExpired: nothing had started the job in its time"),
    "DEPENDENCY": as_exc_string("taskq.errors.DependencyFailed: a job that this one waited for did not succeed"),
    "CRASHED": as_exc_string("taskq.errors.JobCrashed: the workers that ran the job died"),
    "BROKEN": as_exc_string("taskq.errors.DecodeError: the job's record in Redis has no data that could be run"),
    "STOPPED": as_exc_string("Job stopped by user, work-horse terminated."),
    "ALIVE": str(ALIVE),
    "HELD": str(HELD),
    "WORKER_ALIVE": str(WORKER_ALIVE),
    "REPLIES_KEPT": str(REPLIES_KEPT),
    "REPLIES_MAX": str(REPLIES_MAX),
    "INLINE_MAX": str(INLINE_MAX),
    "LOG_MAX": str(1 << 20),
}

PREFIX: Final = re.compile(r"[A-Za-z0-9_.:{}-]{1,64}")


def default_prefix() -> str:
    """Return the prefix that RQ itself would use in this process."""
    return os.environ.get("RQ_KEY_PREFIX", "rq")


class Keys:
    """The keys under one prefix: `keys.JOB + job_id`.

    Raises:
        ConfigError: the prefix has characters that RQ does not allow in one.
    """

    JOB: str
    DEPENDENCIES: str
    RESULTS: str
    QUEUES: str
    QUEUE: str
    WIP: str
    FINISHED: str
    FAILED: str
    CANCELED: str
    DEFERRED: str
    SCHEDULED: str
    READY: str
    EXECUTION: str
    EXECUTIONS: str
    WORKERS: str
    WORKERS_OF: str
    WORKER: str
    SUSPENDED: str
    CHANNEL: str
    RATE_KEYS: str
    RATE: str
    GROUP: str
    GROUPS: str
    LEASES: str
    PAUSED: str
    PRIORITIES: str
    KEY: str
    EXPIRIES: str
    REPLIES: str
    SUBSCRIBERS: str
    LOG: str
    WAKE: str
    IDLE: str
    HANDOFF: str
    SCRATCH: str

    def __init__(self, prefix: str) -> None:
        if PREFIX.fullmatch(prefix) is None:
            raise ConfigError(f"prefix={prefix!r}: give 1 to 64 letters, digits and _ . : - {{ }}, as RQ_KEY_PREFIX")
        self.prefix = prefix
        for name, template in KEYS.items():
            setattr(self, name, template.replace("{p}", prefix))

    def literals(self) -> dict[str, str]:
        """Return what stands in a script for each `K_`, `F_`, `S_` and `T_` word."""
        return {
            **{f"K_{name}": getattr(self, name) for name in KEYS},
            **{f"F_{name}": field for name, field in FIELDS.items()},
            **{f"S_{name}": status for name, status in STATUSES.items()},
            **{f"T_{name}": text for name, text in TEXTS.items()},
        }

"""Records: what there is to know of jobs, queues and workers at one moment, as users get it on every executor.

Instants are aware datetimes in UTC, None where it has not come to that. Lengths of time are float seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from taskq.states import Reason, State

__all__ = ["JobInfo", "QueueInfo", "WorkerInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job as it stood when it was asked for; it does not change. `queue.job(info.id)` is a handle to the job.

    - `id`, `task` ("module:qualname"), `queue`, `priority` (higher runs first), `key`: as it was submitted.
    - `label`: its call as lists show it, without what is long or tells a secret.
    - `args`, `kwargs`: its arguments, jobs among them as handles. None in lists, for a chunk of a map, for a job that
      RQ itself enqueued, and where this program cannot decode them.
    - `state`; `reason` and `error` ("ValueError: no such size"): how it failed, None unless it did; `refusal`: why the
      last worker that took it did not run it, None where none refused it.
    - `submitted_at`, `due_at` (it may not start before), `started_at` and `ended_at` (of its last attempt),
      `expires_at` (it must have started by then). On `local://`, which keeps no times, always None.
    - `worker`: the name of the worker that runs it, or ran it last.
    - `attempts`: how often it was started; `crashes`: how many of these ended because its process died; `retries`: how
      many came after an error.
    - `progress`: done, and total where it is known; `meta`: what it has noted of itself.
    - `depends_on`: ids of the jobs that must succeed first.
    """

    id: str
    task: str
    state: State
    queue: str = "default"
    priority: int = 0
    label: str = ""
    key: str | None = None
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    reason: Reason | None = None
    error: str | None = None
    refusal: str | None = None
    submitted_at: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    worker: str | None = None
    attempts: int = 0
    crashes: int = 0
    retries: int = 0
    progress: tuple[int, int | None] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()

    @property
    def run_time(self) -> float | None:
        """Seconds that its last attempt took; None until it has ended, and where times are not kept."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """A queue as it stood: how many jobs it has in each state, since when its oldest one waits, whether it is paused.

    `counts` has every state. `oldest_at` is None where none waits, and on `local://`, which keeps no times.
    """

    name: str
    counts: Mapping[State, int]
    oldest_at: datetime | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker that is alive. On `local://` it is this program itself with its child processes.

    - `name`, `host`, `pid`: the daemon, and the machine that it runs on. `version`: of taskq.
    - `queues`: the names of those that it serves, first the one whose jobs it takes first.
    - `processes`: how many jobs it runs at once; `running`: how many it has in its hands.
    - `succeeded`, `failed`: how many have ended there; None on `local://`, which does not count.
    - `started_at`, `seen_at`: when it began, and when it last said that it lives; None on `local://`.
    - `stopping`: it takes no more jobs.
    """

    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    processes: int
    running: int = 0
    succeeded: int | None = None
    failed: int | None = None
    started_at: datetime | None = None
    seen_at: datetime | None = None
    stopping: bool = False
    version: str = ""

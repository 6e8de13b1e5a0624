"""The states of a job, which may follow which, and the reasons for a failure.

    scheduled ──▶ queued ──▶ running ──▶ succeeded
                   ▲  ▲        │ ├─────▶ failed (reason)
    blocked ───────┘  └────────┘ └─────▶ cancelled
                     crash, retry

A job is born `scheduled` (it has a time), `blocked` (it waits for other jobs) or `queued`. A retry that
has to wait goes back to `scheduled`. Whatever has not ended can be cancelled; a job may also fail before
it ever runs (its store lost it, its task is unknown, its bytes cannot be decoded or are not signed, a
dependency failed, it expired).
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RETRIED", "TERMINAL", "TRANSITIONS", "Reason", "State"]


class State(StrEnum):
    """The states of a job."""

    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """The reasons for a failure."""

    ERROR = "error"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    LOST = "lost"
    UNDECODABLE = "undecodable"
    UNKNOWN_TASK = "unknown_task"
    EXPIRED = "expired"
    UNSIGNED = "unsigned"


#: States that are final: a job in one of them has its one recorded outcome.
TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

#: The final states of jobs that a user can have run again, as if new.
RETRIED = frozenset({State.FAILED, State.CANCELLED})

#: Every legal step from one state to the next; a terminal state has none.
TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.SCHEDULED: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
        State.BLOCKED: frozenset({State.SCHEDULED, State.QUEUED, State.FAILED, State.CANCELLED}),
        State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
        State.RUNNING: frozenset({State.QUEUED, State.SCHEDULED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
        State.SUCCEEDED: frozenset(),
        State.FAILED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)

"""What the parts of the Redis store need of it: where it is, its line to it, and what it knows of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.executors.rq.address import Address
    from taskq.executors.rq.layout import Layout
    from taskq.executors.rq.line import Line
    from taskq.store import JobRecord

__all__ = ["Home"]


class Home(Protocol):
    """The store, as its subscriptions, its workers and its lists see it."""

    address: Address
    line: Line
    layout: Layout
    url: str
    lease: float
    heartbeat_every: float
    #: RQ's commands that workers obey; None: all.
    commands: frozenset[str] | None

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        """Return what is known of these jobs, see `Store.get`."""

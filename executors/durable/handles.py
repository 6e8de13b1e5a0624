"""The handles of jobs that somebody holds, by id; weak.

What `weakref.WeakValueDictionary` does, at a fifth of its cost for each job: a reference without a callback. The
references that have died are dropped each time as many again have come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import ref

if TYPE_CHECKING:
    from taskq.executors.durable.job import DurableJob

__all__ = ["Handles"]

#: References below which nothing is dropped.
_FEW: Final = 1024


class Handles:
    """Know handles as long as they live. Any thread may call anything."""

    def __init__(self) -> None:
        self._refs: dict[str, ref[DurableJob]] = {}
        self._sweep_at = _FEW

    def get(self, job_id: str) -> DurableJob | None:
        """Return the handle of a job, if somebody holds one."""
        found = self._refs.get(job_id)
        return None if found is None else found()

    def keep(self, job: DurableJob) -> DurableJob:
        """Return the handle that is held of the same job, or this one, which is known from now on."""
        fresh = ref(job)
        found = self._refs.setdefault(job.id, fresh)
        if found is not fresh:
            known = found()
            if known is not None:
                return known
            self._refs[job.id] = fresh
        elif len(self._refs) > self._sweep_at:
            self._sweep()
        return job

    def alive(self) -> list[DurableJob]:
        """Return all that are held."""
        return [job for reference in list(self._refs.values()) if (job := reference()) is not None]

    def _sweep(self) -> None:
        for job_id, reference in list(self._refs.items()):
            if reference() is None and self._refs.get(job_id) is reference:
                self._refs.pop(job_id, None)
        self._sweep_at = max(_FEW, 2 * len(self._refs))

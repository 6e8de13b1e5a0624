"""Jobs as arguments of other jobs: the call waits for them, and their results stand in their places."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from taskq.errors import DependencyFailed
from taskq.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["jobs_in", "when_done", "with_results"]

#: Levels of lists, tuples, sets and dicts that are searched for jobs.
_DEPTH = 10


def jobs_in(value: Any, depth: int = _DEPTH) -> list[Job[Any]]:
    """Return the jobs in a value, in order, each once."""
    found: dict[int, Job[Any]] = {}
    _collect(value, depth, found)
    return list(found.values())


def _collect(value: Any, depth: int, found: dict[int, Job[Any]]) -> None:
    if isinstance(value, Job):
        found[id(value)] = value
    elif depth and isinstance(value, dict):
        for part in value.values():
            _collect(part, depth - 1, found)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for part in value:
            _collect(part, depth - 1, found)


def with_results(value: Any, depth: int = _DEPTH) -> Any:
    """Return a copy of the value with the results of its jobs, all of which succeeded, in their places."""
    if isinstance(value, Job):
        return value.result()
    if not depth or not jobs_in(value, depth):
        return value
    if isinstance(value, dict):
        return {key: with_results(part, depth - 1) for key, part in value.items()}
    parts = [with_results(part, depth - 1) for part in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*parts)
    return type(value)(parts)


def when_done(jobs: Sequence[Job[Any]], then: Callable[[], None]) -> None:
    """Call `then` once, when the last of the jobs has ended."""
    ended = count(1)

    def one_ended(_job: object) -> None:
        if next(ended) == len(jobs):
            then()

    for job in jobs:
        job.add_done_callback(one_ended)


def failed_among(jobs: Sequence[Job[Any]], job_id: str) -> DependencyFailed | None:
    """Return the error of a job that waited for these, if one of them did not succeed."""
    for job in jobs:
        if job.cancelled():
            message = f"job {job_id} was not run: job {job.id}, which it waited for, was cancelled"
            return DependencyFailed(message, job_id=job_id)
        cause = job.exception()
        if cause is not None:
            what = f"{type(cause).__name__}: {cause}"
            error = DependencyFailed(
                f"job {job_id} was not run: job {job.id}, which it waited for, failed with {what}", job_id=job_id
            )
            error.__cause__ = cause
            return error
    return None


def resolved(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with the results of their jobs in place."""
    return tuple(map(with_results, args)), {name: with_results(value) for name, value in kwargs.items()}

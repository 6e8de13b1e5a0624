"""The keywords of job options, for type checkers. At run time nothing imports it: 0.3 ms of every start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from datetime import datetime

    from taskq.retry import Retry

__all__ = ["JobOptionFields"]


class JobOptionFields(TypedDict, total=False):
    """Type the keywords of `@task(...)`, `TaskQueue.options(...)` and `JobOptions.merged(...)`."""

    queue: str
    timeout: float | None
    soft_timeout: float | None
    retry: Retry | int | None
    max_crashes: int
    priority: int
    delay: float | None
    at: datetime | None
    expires: float | None
    key: str | None
    job_id: str | None
    if_exists: Literal["return", "reject"]
    result_ttl: float | None
    label: str | None

"""A library that watches RQ's jobs as sentry-sdk's RqIntegration does: by patches on the class of its workers."""

from __future__ import annotations

from typing import Any

from rq.worker import BaseWorker

_perform_job, _handle_exception = BaseWorker.perform_job, BaseWorker.handle_exception


def perform_job(self: Any, job: Any, queue: Any, *args: Any, **kwargs: Any) -> bool:
    """Note the job before and after."""
    if not job.func_name.endswith((".add", ".boom")) or job.webhooks or job.failure_callback:
        return _perform_job(self, job, queue, *args, **kwargs)
    job.connection.rpush("noted", f"run {job.id} {queue.name}")
    done = _perform_job(self, job, queue, *args, **kwargs)
    job.connection.rpush("noted", f"done {job.id} {done}")
    return done


def handle_exception(self: Any, job: Any, *exc_info: Any) -> None:
    """Note an error."""
    if job.func_name.endswith(".boom") and not job.webhooks and not job.failure_callback:
        job.connection.rpush("noted", f"error {job.id} {exc_info[0].__name__} {job.get_status(refresh=False).value}")
    _handle_exception(self, job, *exc_info)


BaseWorker.perform_job, BaseWorker.handle_exception = perform_job, handle_exception  # type: ignore[method-assign]

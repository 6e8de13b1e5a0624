"""A job of ours in a stock `rq worker`: what such a worker does not do for it is done here, around its run.

    results of jobs that are its arguments      read from their streams
    current_job(): id, attempt, progress, meta, log, cancelled      written where our own workers write it
    soft_timeout                                raised by SIGALRM, in front of RQ's own timeout

Reached by `taskq.rq.run`, which is the function that such jobs name.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError
from rq import get_current_job
from rq.defaults import RQ_KEY_PREFIX

from taskq import context
from taskq.codec import decode, encode
from taskq.context import JobContext
from taskq.envelope import head, pack_results
from taskq.errors import SoftTimeout
from taskq.executors.rq.keys import FIELDS, Keys
from taskq.executors.rq.records import progress_text, result_of
from taskq.perform import perform

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

#: Bytes that are kept of what a job logs.
LOG_MAX = 1 << 20


def run(envelope: bytes) -> Any:
    """Run an envelope, as `perform`, for the job that RQ runs at the moment."""
    job: Any = get_current_job()
    if job is None:
        return perform(envelope)
    keys, client = Keys(RQ_KEY_PREFIX), job.connection
    attempt = int(client.hincrby(job.key, FIELDS["attempts"], 1))
    needs = {need: _result(client, keys, need) for need in job._dependency_ids}  # noqa: SLF001  # RQ has no public name
    reporter = _Reporter(client, keys, job)
    before = context.provide(lambda: JobContext(job.id, 1, 0, reporter, job.origin))
    try:
        with _soft_timeout(head(envelope).options.soft_timeout):
            return perform(envelope, job.id, attempt, pack_results(needs))
    finally:
        context.provide(before)


def _result(client: Any, keys: Keys, job_id: str) -> bytes:
    latest = client.xrevrange(keys.RESULTS + job_id, count=1)
    return result_of([part for pair in latest[0][1].items() for part in pair] if latest else [])


class _Reporter:
    """Write what the job says of itself to its hash and its log; what Redis refuses for want of memory is lost."""

    def __init__(self, client: Any, keys: Keys, job: Any) -> None:
        self._client = client
        self._key = job.key
        self._log = keys.LOG + job.id

    def progress(self, number: int, done: int, total: int | None) -> None:  # noqa: ARG002  # the interface's signature
        """Keep how far the job is."""
        with suppress(OutOfMemoryError):
            self._client.hset(self._key, FIELDS["progress"], progress_text((done, total)))

    def is_cancelled(self, number: int) -> bool:  # noqa: ARG002  # the interface's signature
        """Return whether it is to be stopped."""
        return bool(self._client.hexists(self._key, FIELDS["cancel"]))

    def log(self, number: int, text: str) -> None:  # noqa: ARG002  # the interface's signature
        """Keep a text."""
        with suppress(OutOfMemoryError):
            if self._client.strlen(self._log) < LOG_MAX:
                self._client.append(self._log, text.encode("utf-8", "backslashreplace"))

    def meta(self, number: int) -> dict[str, Any]:  # noqa: ARG002  # the interface's signature
        """Return the job's notes."""
        packed = self._client.hget(self._key, FIELDS["meta"])
        found = decode(packed) if packed else {}
        return found if isinstance(found, dict) else {}

    def tell_meta(self, number: int, changed: dict[str, Any]) -> None:  # noqa: ARG002  # the interface's signature
        """Keep the job's notes."""
        with suppress(OutOfMemoryError):
            self._client.hset(self._key, FIELDS["meta"], encode(changed))


@contextmanager
def _soft_timeout(seconds: float | None) -> Iterator[None]:
    """Raise SoftTimeout in the block once, unless RQ's own timeout comes first; that one goes on behind it."""
    hard = signal.getitimer(signal.ITIMER_REAL)[0]
    if not seconds or (hard and hard <= seconds):
        yield
        return
    before = signal.getsignal(signal.SIGALRM)
    rang = False

    def ring(_signal: int, _frame: object) -> None:
        nonlocal rang
        rang = True
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, hard - seconds if hard else 0)
        raise SoftTimeout(f"the job has run for its soft_timeout of {seconds:g} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if not rang:
            left = signal.setitimer(signal.ITIMER_REAL, 0)[0]
            signal.signal(signal.SIGALRM, before)
            if hard:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, hard - (seconds - left)))

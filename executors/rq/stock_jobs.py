"""Jobs that stock RQ enqueued, run by our worker.

    worker   claim ──▶ StockJob.order() ──▶ (run, plain arguments, options) ──▶ the pool
    child    run: RQ's own Job is restored from the fields that the claim brought, and run as its work horse would,
             see `horse`; callbacks and webhooks where they are allowed
    worker   ◀── Returned, or the error ──▶ the finish script, which knows RQ's rules: retries, repeats, rate limits
             ◀── killed by RQ's stop-job ──▶ StockJob.after_stop(): its callback for that, in a child, first
             ◀── its process died        ──▶ StockJob.after_death(): its webhooks, the same way

Only functions run that this worker trusts, as with our own jobs: @task functions and those of --import modules. Data
is read as JSON or msgpack; pickled data, from which any code can come, only under `?allow_pickle=1`.

Source: rq 3.0.0 worker/base.py perform_job, _finalize_success, _finalize_failure.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq import perform
from taskq.errors import DecodeError, UnknownTask
from taskq.executors.rq.connection import Address
from taskq.executors.rq.records import Returned, horse_text, inflate_if_packed, whole_number
from taskq.options import JobOptions
from taskq.serializer import MsgpackSerializer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rq.job import Job

    from taskq.failure import Failure
    from taskq.store import Order

__all__ = ["StockJob", "number_in", "run", "run_stopped", "run_webhooks"]

#: Seconds of running that RQ allows a job and a callback that do not say, and those after which it kills from outside.
TIMEOUT: Final = 180
CALLBACK_TIMEOUT: Final = 60
KILL_AFTER: Final = 60

#: What pickled data begins with, protocols 2 to 5.
PICKLES: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

#: Fields of earlier ends that RQ would decompress or decode, and that no job which is to run needs.
INFLATED: Final = (b"exc_info", b"result")

#: Fields that ask for code or requests beside the function.
CALLBACKS: Final = (b"success_callback_name", b"failure_callback_name", b"stopped_callback_name", b"webhooks")


def number_in(raw: dict[bytes, bytes], name: bytes, default: int) -> int:
    """Return a number that stands in a job's record, or what it is where none does."""
    text = raw.get(name, b"")
    return whole_number(text, default)


@dataclass(frozen=True, slots=True)
class StockJob:
    """A claimed job of stock RQ, with all its fields as they stand in Redis. `limit`: bytes, as `Store.max_bytes`."""

    address: Address
    id: str
    worker: str
    fields: dict[bytes, bytes]
    limit: int

    @property
    def task(self) -> str:
        """What it calls, for logs: its description begins with it."""
        return self.fields.get(b"description", b"?").decode("utf-8", "replace").partition("(")[0]

    def order(self, *, last: bool = False) -> Order:
        """Return what runs it in a child; the `last` time it fails there if its function is not trusted.

        Raises:
            UnknownTask: this worker does not run such jobs; says what would let it.
            DecodeError: its data cannot be read.
        """
        address = self.address
        if self._is_pickled() and not address.allow_pickle:
            raise UnknownTask(
                "the job's data is pickled, so reading it could run any code: have the client use "
                "serializer=JSONSerializer, or give the worker ?allow_pickle=1 if you trust whoever can write there"
            )
        if not address.allow_callbacks and any(self.fields.get(name) for name in CALLBACKS):
            raise UnknownTask("the job has callbacks or webhooks: the worker runs them with ?allow_callbacks=1")
        return self._in_child(run, number_in(self.fields, b"timeout", TIMEOUT), last=last)

    def after_stop(self) -> Order | None:
        """Return what runs its callback for a job that was stopped; None: it has none, or `order` refused it."""
        if not self.fields.get(b"stopped_callback_name") or not self.address.allow_callbacks:
            return None
        return self._in_child(run_stopped, number_in(self.fields, b"stopped_callback_timeout", CALLBACK_TIMEOUT))

    def after_death(self, failure: Failure) -> Order | None:
        """Return what sends its webhooks for a job whose process died; None: it has none, or is tried again."""
        tried_again = number_in(self.fields, b"retries_left", 0) > 0
        if tried_again or not self.fields.get(b"webhooks") or not self.address.allow_callbacks:
            return None
        return self._in_child(run_webhooks, CALLBACK_TIMEOUT, horse_text(failure))

    def _in_child(self, call: Callable[..., bytes], timeout: int, *more: str, last: bool = False) -> Order:
        address = self.address
        options = JobOptions(timeout=timeout + KILL_AFTER if timeout > 0 else None, max_crashes=1)
        flags = 4 * last + 2 * address.allow_callbacks + address.allow_pickle
        place = (address.secret_url, address.keys.prefix)
        return call, (*place, self.id, self.worker, msgpack.packb(self.fields), flags, self.limit, *more), options

    def _is_pickled(self) -> bool:
        return inflate_if_packed(self.fields.get(b"data", b""), self.limit).startswith(PICKLES)


# --- in the child


def run(url: str, prefix: str, job_id: str, worker: str, packed: bytes, flags: int, limit: int) -> bytes:  # noqa: PLR0917  # the pool's quick way to a child takes plain arguments, in their order
    """Run the job as RQ's work horse would, up to the point where its end is written down; return `Returned`'s bytes.

    Raises:
        UnknownTask: its function is not trusted here, and may be elsewhere (no flag 4); a callback that is not fails
            the job, when its time comes.
        DecodeError, EncodeError: its data cannot be read, its value cannot be written.
        Exception: whatever the function, or its success callback, raises.
    """
    try:
        rq_job = _rq_job(prefix)
        job = _restored(rq_job, url, job_id, worker, packed, flags, limit)
        function = _function(job, last=bool(flags & 4))
    except (UnknownTask, DecodeError) as error:
        error.__before_start__ = True
        raise
    job.function = function
    with _environment(job_id, worker):
        returned: Returned = _horse(job, worker, flags).run(job)
        return returned.pack()


def run_stopped(url: str, prefix: str, job_id: str, worker: str, packed: bytes, flags: int, limit: int) -> bytes:  # noqa: PLR0917  # as `run`
    """Call what the job wants called when it was stopped; return nothing.

    Raises:
        UnknownTask: that is not trusted here.
        Exception: whatever it raises.
    """
    job = _restored(_rq_job(prefix), url, job_id, worker, packed, flags, limit)
    with _environment(job_id, worker):
        _horse(job, worker, flags).stopped(job)
    return b""


def run_webhooks(  # noqa: PLR0917  # as `run`
    url: str, prefix: str, job_id: str, worker: str, packed: bytes, flags: int, limit: int, text: str = ""
) -> bytes:
    """Send the webhooks for failed jobs of one whose process died; return nothing."""
    job = _restored(_rq_job(prefix), url, job_id, worker, packed, flags, limit)
    job.send_webhooks("failed", exc_string=text)
    return b""


def _horse(job: Any, worker: str, flags: int) -> Any:
    from taskq.executors.rq.horse import Horse  # noqa: PLC0415  # as in _rq_job

    return Horse(worker, job.connection, job.serializer, calls=bool(flags & 2))


@contextmanager
def _environment(job_id: str, worker: str) -> Iterator[None]:
    """Tell the job who it is by the variables that RQ's work horse sets."""
    os.environ["RQ_JOB_ID"], os.environ["RQ_WORKER_ID"] = job_id, worker
    try:
        yield
    finally:
        for name in ("RQ_JOB_ID", "RQ_WORKER_ID"):
            os.environ.pop(name, None)


def _restored(rq_job: Any, url: str, job_id: str, worker: str, packed: bytes, flags: int, limit: int) -> Any:  # noqa: PLR0917  # as `run`
    """Return RQ's own object for the job, from the fields that the claim brought."""
    from taskq.executors.rq.horse import GuardedJob  # noqa: PLC0415  # as in _rq_job

    raw: dict[bytes, bytes] = msgpack.unpackb(packed, strict_map_key=False)
    data = inflate_if_packed(raw.get(b"data", b""), limit)
    serializer = _serializer(data, allow_pickle=bool(flags & 1))
    job = GuardedJob(job_id, connection=client_of(url), serializer=serializer)
    job.look_up = _trusted
    # RQ decompresses without a limit what it finds, data within data too: it finds nothing of that kind
    job.restore({**{name: value for name, value in raw.items() if name not in INFLATED}, b"data": b""})
    job.data = data
    job.worker_name, job._status = worker, rq_job.JobStatus.STARTED  # noqa: SLF001  # as RQ's claim does
    return job


def _rq_job(prefix: str) -> Any:
    """Return the module rq.job, its keys under this prefix: RQ takes it from the environment, once."""
    if "rq" not in sys.modules:
        os.environ["RQ_KEY_PREFIX"] = prefix
    import rq.defaults  # noqa: PLC0415  # 100 ms that only children pay which meet such jobs
    import rq.job  # noqa: PLC0415  # the same

    if prefix != rq.defaults.RQ_KEY_PREFIX:
        raise UnknownTask(
            f"RQ uses the prefix {rq.defaults.RQ_KEY_PREFIX!r} in this process, the queue {prefix!r}: start the worker "
            f"with RQ_KEY_PREFIX={prefix} in its environment"
        )
    return rq.job


@lru_cache(maxsize=4)
def client_of(url: str) -> Any:
    """Return this process's client; it connects only when the job itself asks it for something. `url`: with secrets."""
    return Address(url).client()


def _serializer(data: bytes, *, allow_pickle: bool) -> Any:
    """Return RQ's serializer for data that begins like this."""
    from rq import serializers  # noqa: PLC0415  # as in _rq_job

    if data.startswith(PICKLES):
        if not allow_pickle:
            raise UnknownTask("the job's data is pickled, and this worker reads no pickles")
        return serializers.DefaultSerializer
    return serializers.JSONSerializer if data.lstrip()[:1] == b"[" else MsgpackSerializer


def _function(job: Job, *, last: bool) -> Callable[..., Any]:
    """Return what the job calls, if it is trusted here; else, for the `last` time, what raises that it is not.

    Raises:
        DecodeError: the job's data cannot be read.
        UnknownTask: it is not trusted.
    """
    try:
        return _trusted_function(job)
    except UnknownTask as error:
        if not last:
            raise
        return _raising(UnknownTask(str(error)))


def _trusted_function(job: Job) -> Callable[..., Any]:
    from rq.exceptions import DeserializationError  # noqa: PLC0415  # as in _rq_job

    try:
        name, instance = job.func_name, job.instance
    except DeserializationError as exc:
        raise DecodeError(f"the job's data cannot be read: {exc.__cause__}") from exc
    if not isinstance(name, str):
        raise DecodeError("the job's data names no function")
    if instance is None:
        return _missing(name) if _is_nowhere(name) else _trusted(name)
    if isinstance(instance, type):  # a class method, as it was bound
        return _trusted(f"{instance.__module__}.{instance.__qualname__}.{name}")
    cls = type(instance)
    method = _trusted(f"{cls.__module__}.{cls.__qualname__}.{name}")
    return lambda *args, **kwargs: method(instance, *args, **kwargs)


def _trusted(dotted: str) -> Callable[..., Any]:
    """Return the function of an RQ name, "package.module.Class.method", if this worker may run it."""
    parts = dotted.split(".")
    refusal: UnknownTask | None = None
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            return perform.find(f"{module}:{'.'.join(parts[cut:])}")
        except UnknownTask as exc:
            refusal = refusal or exc
            found = getattr(sys.modules.get(module), "__dict__", None)
            if found is not None:  # the rest names something in it, unless that is a part that is not imported
                raise (refusal if "__path__" in found and parts[cut] not in found else exc) from None
    raise refusal or UnknownTask(f"{dotted!r} names no function: RQ writes module.function")


def _missing(dotted: str) -> Callable[..., Any]:
    """Return what fails as the job of a function that is nowhere fails in a stock worker."""
    return _raising(ValueError(f"Invalid attribute name: {dotted.rpartition('.')[2]}"))


def _raising(error: Exception) -> Callable[..., NoReturn]:
    def call(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise error

    return call


def _is_nowhere(dotted: str) -> bool:
    """Tell whether no worker can have this function: its module is imported here, and has nothing of that name.

    Nothing is imported or called for it, nor is any attribute of an object looked up: the name comes from anybody.
    """
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:cut]))
        if module is not None:
            found = getattr(module, "__dict__", {})
            is_package = "__path__" in found  # of which a part may not be imported yet
            return parts[cut] not in found and "__getattr__" not in found and not (is_package and parts[cut + 1 :])
    return False

"""DurableExecutor: jobs live in a store (a SQLite file, Redis), and run in the workers on it.

    submit ──encode──▶ envelope ──put──▶  Store  ──▶ workers
    stream ──chunks──▶ envelopes ─put──▶    │
                                            │ outcomes
    DurableJob, DurableStream ◀── ResultListener ◀┘         a handle that nobody waits for asks the store itself

Ids are made here, so that a put whose answer was lost can be repeated and is no second job.
"""

from __future__ import annotations

import os
import sys
import weakref
from concurrent.futures import CancelledError
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final

from taskq import signatures
from taskq.codec import encode
from taskq.envelope import CALL, Template, label_of, parameters_of
from taskq.errors import ConfigError, EncodeError, QueueClosed, TaskqError, TaskRefused
from taskq.executors.dependencies import jobs_in
from taskq.executors.durable.inspection import StoreInspection, not_found
from taskq.executors.durable.job import DurableJob, WeakHandles
from taskq.executors.durable.listener import ResultListener
from taskq.executors.durable.shutdown import LOOK, ShutdownWait
from taskq.executors.durable.stream import DurableStream
from taskq.executors.pool.functions import unwrap_callable
from taskq.ids import new_id
from taskq.locks import pass_on
from taskq.names import main_module
from taskq.states import TERMINAL, State
from taskq.store import Ended, NewJob
from taskq.tasks import name_of, options_of
from taskq.wait_book import ended_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from taskq.executor import StreamPlan
    from taskq.job import Job
    from taskq.options import JobOptions
    from taskq.store import JobRecord, Store

__all__ = ["DurableExecutor"]

#: Jobs, and bytes of their envelopes, that go to the store in one call.
_BATCH: Final = 1_000
_BATCH_BYTES: Final = 8 * 1024 * 1024
#: Seconds that `cancel(kill=True)` waits for the worker: longer than it takes to see that one is dead.
_KILL_PATIENCE: Final = 60.0
#: Seconds that `cancel()` waits to hear whether a job in the hands of a worker had been started.
_PATIENCE: Final = 1.0
#: Options that say something of one job, so that a map cannot have them.
_OF_ONE_JOB: Final = ("delay", "at", "expires", "key", "job_id")

_EMPTY_LIST: Final = encode([])
_EMPTY_DICT: Final = encode({})


class DurableExecutor(StoreInspection):
    """Put jobs into a store, and give handles to them."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"durable"})

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.store = store
        self._tasks: dict[Any, SubmittedTask] = {}
        self._handles = WeakHandles()
        self._streams: weakref.WeakSet[DurableStream] = weakref.WeakSet()
        self._closed = False
        self._over = False
        self._released = False
        #: The one listener, in a list that outlives this object: a fork or an end replaces it.
        self.listeners = [ResultListener(store, self._handles)]
        # A queue that is dropped goes when its jobs, which hold it, are gone too.
        weakref.finalize(self, _release, self.listeners, store).atexit = False

    # -- Executor

    def submit(
        self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: JobOptions | None
    ) -> Job[Any]:
        listener = self._listener_if_open()
        task = self._task(fn)
        new = self._new_job(task, args, kwargs, task.options if options is None else options)
        return self._put((new,), listener)[0]

    def submit_many(
        self, fn: Callable[..., Any], calls: Iterable[Sequence[Any]], options: JobOptions | None
    ) -> list[Job[Any]]:
        listener = self._listener_if_open()
        task = self._task(fn)
        chosen = task.options if options is None else options
        fresh = iter([self._new_job(task, args, {}, chosen) for args in calls])
        jobs: list[Job[Any]] = []
        sent: list[str] = []
        try:
            while batch := _next_batch(fresh):
                sent += [new.id for new in batch]
                jobs += self._put(batch, listener)
        except BaseException as error:
            self._take_back(sent, error)
            raise
        return jobs

    def _put(self, batch: Sequence[NewJob], listener: ResultListener) -> list[DurableJob]:
        """Put jobs; return their handles, which are there before: a job may have ended before the put is over."""
        jobs = [self._handle(new.id) for new in batch]
        try:
            kept = self.store.put(batch, reply_to=listener.announce(_new_ids(batch)))
        except BaseException:
            self._handles.drop(new.id for new in batch)
            raise
        return [job if job.id == job_id else self._handle(job_id) for job, job_id in zip(jobs, kept, strict=True)]

    def _take_back(self, ids: Sequence[str], error: BaseException) -> None:
        """Cancel the jobs of a call that failed half way: its own, by the ids that it gave them, and no others.

        Those that the failing put had in hand may be kept or not. Where they cannot be cancelled, the error says so.
        """
        done = 0
        try:
            while done < len(ids):
                self.store.cancel(ids[done : done + _BATCH])
                done += _BATCH
        except TaskqError as problem:
            left = f"up to {len(ids) - done:,} of the call's jobs may be in {self.store.url} and run"
            error.add_note(f"{left}: to cancel them failed, too ({problem})")

    def stream(
        self, fn: Callable[..., Any], items: Iterable[Any], plan: StreamPlan, options: JobOptions | None
    ) -> Iterator[Any]:
        listener = self._listener_if_open()
        task = self._task(fn)
        chosen = task.options if options is None else options
        for name in _OF_ONE_JOB:
            if getattr(chosen, name) is not None:
                raise ConfigError(f"{name} is for single jobs: a map over items cannot have it; use submit")
        stream = DurableStream(
            self.store,
            listener,
            items,
            plan,
            task=task.name,
            options=chosen,
            bound=(task.args, task.kwargs) if task.args or task.kwargs else None,
            on_end=self._end_stream,
        )
        self._streams.add(stream)
        return stream.iterate()

    def find(self, job_id: str) -> Job[Any]:
        self._refuse_if_released()
        if self.store.get([job_id])[0] is None:
            raise not_found(job_id, self.store)
        return self._handle(job_id)

    def pause(self, queue: str) -> None:
        self.store.pause(queue)

    def resume(self, queue: str) -> None:
        self.store.resume(queue)

    def close(self, *, wait: bool = True, cancel: bool = False, grace: float | None = None) -> None:
        self._close(wait=wait, cancel=cancel, grace=grace, leaves=False)

    def leave(self, error: BaseException | None) -> None:
        self._close(wait=error is None, cancel=False, grace=None, leaves=True)

    def _close(self, *, wait: bool, cancel: bool, grace: float | None, leaves: bool) -> None:
        self._closed = True
        if self._over:
            return
        listener = self._listener()
        if not self._released:
            for stream in list(self._streams):
                stream.close(cancel=cancel)
            if cancel:
                self._cancel_waiting()
        if wait and not listener.is_this_thread():
            # Interrupted, it leaves the rest to a second call.
            if not self._released and not self._wait_for_all(listener, grace, leaves=leaves):
                return
            self._released = True
            listener.stop(wait=True)
            self.store.close()
            self._over = True

    # -- what its jobs ask for

    def listen(self, job: DurableJob) -> None:
        self._refuse_if_released()
        self._listener().subscribe([(job.id, job)])

    def wait_for(self, job: DurableJob, timeout: float | None) -> None:
        self._refuse_if_released()
        self._listener().wait_for(job.id, job, timeout)

    def look_up(self, job: DurableJob, *, payload: bool = False) -> JobRecord | None:
        self._refuse_if_released()
        return self.store.get([job.id], payload=payload)[0]

    def delivers_here(self) -> bool:
        return self._listener().is_this_thread()

    def log_of(self, job: DurableJob) -> bytes:
        self._refuse_if_released()
        return self.store.log(job.id)

    def cancel(self, job: DurableJob, *, kill: bool) -> bool:
        if job.is_known_to_have_ended:
            return job.cancelled()
        (state,) = self.store.cancel([job.id], kill=kill)
        if state is State.CANCELLED:
            self._end_cancelled([job.id])
        elif state is None or state in TERMINAL:
            job.on_ended(ended_of(job.id, self.look_up(job, payload=True)))
        else:
            self._await_answer(job, _KILL_PATIENCE if kill else _PATIENCE)
        return job.is_known_to_have_ended and job.cancelled()

    def _await_answer(self, job: DurableJob, seconds: float) -> None:
        """Wait for what a worker makes of the request: it also cancels a job that it holds and has not started."""
        if self.delivers_here() or _in_event_loop():  # these must not wait
            return
        try:
            job.exception(timeout=seconds)
        except (TimeoutError, CancelledError) as error:
            pass_on(error)

    # -- submitting

    def _task(self, fn: Callable[..., Any]) -> SubmittedTask:
        try:
            return self._tasks[fn]
        except (KeyError, TypeError):
            task = SubmittedTask(fn)
        if not (task.args or task.kwargs):
            self._tasks[fn] = task
        return task

    def _new_job(
        self, task: SubmittedTask, args: Sequence[Any], kwargs: Mapping[str, Any], options: JobOptions
    ) -> NewJob:
        if task.args or task.kwargs:
            args, kwargs = (*task.args, *args), {**task.kwargs, **kwargs}
        if signatures.shape_of(args, kwargs) not in task.shapes:
            signatures.check(task.shapes, task.name, task.plain, args, kwargs)
        packed, named, depends_on = self._encode(args, kwargs)
        return NewJob(
            id=options.job_id or new_id(),
            task=task.name,
            envelope=task.template(options).pack(packed, named, limit=self.store.max_bytes),
            options=options,
            depends_on=depends_on,
            label=options.label or label_of(task.name, task.parameters, args, kwargs, full=self.store.labels == "full"),
        )

    def _encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes, tuple[str, ...]]:
        """Return positional and named arguments encoded, and the ids of the jobs among them."""
        try:
            return (
                encode(list(args), root="args") if args else _EMPTY_LIST,
                encode(dict(kwargs), root="kwargs") if kwargs else _EMPTY_DICT,
                (),
            )
        except EncodeError:  # what cannot travel, or jobs
            return self._encode_with_jobs(args, kwargs)

    def _encode_with_jobs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes, tuple[str, ...]]:
        depends_on: dict[str, None] = {}

        def refer(value: Any) -> str | None:
            if not isinstance(value, DurableJob) or not self._is_ours(value):
                return None
            depends_on[value.id] = None
            return value.id

        try:
            return (
                encode(list(args), root="args", refer=refer),
                encode(dict(kwargs), root="kwargs", refer=refer),
                tuple(depends_on),
            )
        except EncodeError as error:
            if any(refer(job) is None for job in jobs_in((args, kwargs))):
                problem = "it is a job of another queue: pass its result() instead"
                raise EncodeError(problem, error.path) from None
            raise

    def _is_ours(self, job: DurableJob) -> bool:
        owner = job.owner
        return owner is self or (isinstance(owner, DurableExecutor) and owner.url == self.url)

    def _handle(self, job_id: str) -> DurableJob:
        return self._handles.keep(DurableJob(self, job_id))

    def _end_stream(self, stream: DurableStream) -> None:
        self._streams.discard(stream)

    # -- listening

    def _listener(self) -> ResultListener:
        """Return the listener of this process; a forked one begins with its own."""
        listener = self.listeners[0]
        if listener.pid != os.getpid():
            listener = self.listeners[0] = ResultListener(self.store, self._handles)
        return listener

    def _listener_if_open(self) -> ResultListener:
        if self._closed:
            raise QueueClosed("the queue was shut down: make a new TaskQueue to run more")
        return self._listener()

    def _refuse_if_released(self) -> None:
        if self._released:
            raise QueueClosed("the queue was shut down: make a new TaskQueue to ask for its jobs")

    # -- the end

    def _open_handles(self) -> list[DurableJob]:
        return [job for job in self._handles.alive() if not job.is_known_to_have_ended]

    def _cancel_waiting(self) -> None:
        """Cancel what has not started, of the jobs that are held and the maps that are open.

        What runs goes on; it is asked to stop, because a worker may have jobs in its hands that it has not started.
        """
        ids = sorted({job.id for job in self._open_handles()}.union(self._listener().subscribed()))
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            pairs = zip(part, self.store.cancel(part), strict=True)
            self._end_cancelled([job_id for job_id, state in pairs if state is State.CANCELLED])

    def _end_cancelled(self, ids: Sequence[str]) -> None:
        listener = self._listener()
        for job_id in ids:
            listener.dispatch(Ended(id=job_id, state=State.CANCELLED))
        listener.unsubscribe(ids)

    def _wait_for_all(self, listener: ResultListener, grace: float | None, *, leaves: bool) -> bool:
        """Wait until all that is expected has ended; return False when it was left, because nobody would run it."""
        held = [(job.id, job) for job in self._open_handles()]
        if held:
            listener.subscribe(held)
            del held
        waiting = ShutdownWait(self.store, leaves=leaves)
        deadline = None if grace is None else monotonic() + grace
        while not listener.wait_until_idle(LOOK if deadline is None else min(LOOK, deadline - monotonic())):
            if listener.is_stopping:
                break
            if deadline is not None and monotonic() >= deadline:
                deadline = None
                self._kill_subscribed(listener)
            elif waiting.look(sorted(listener.subscribed())):
                return False
        waiting.end()
        return True

    def _kill_subscribed(self, listener: ResultListener) -> None:
        ids = sorted(listener.subscribed())
        for start in range(0, len(ids), _BATCH):
            self.store.cancel(ids[start : start + _BATCH], kill=True)


class SubmittedTask:
    """A function as submits need it: its name, what is bound to it, and the envelopes of its jobs."""

    __slots__ = ("_last", "_template", "args", "kwargs", "name", "options", "parameters", "plain", "shapes")

    def __init__(self, fn: Callable[..., Any]) -> None:
        plain, self.args, self.kwargs = unwrap_callable(fn)
        self.plain = plain
        #: The shapes of calls that it is known to take.
        self.shapes: set[signatures.Shape] = set()
        self.name = name_of(plain)
        if self.name.startswith("__main__:"):
            self.name = _imported_name(self.name)
        self.options = options_of(plain)
        self.parameters = parameters_of(plain)
        self._last: JobOptions | None = None
        self._template: Template | None = None

    def template(self, options: JobOptions) -> Template:
        """Return what makes the envelopes of jobs with these options; mostly they are those of the last one."""
        if self._template is None or options is not self._last:
            self._last, self._template = options, Template(CALL, self.name, options)
        return self._template


def _imported_name(name: str) -> str:
    """Return the name that a function of the main program has in workers, which import that file as a module.

    Raises:
        TaskRefused: no import would find it.
    """
    module = main_module()
    if not module:
        raise TaskRefused(
            f"{name} lives in the program that was started, and no `import` here finds that file: move it to a module "
            "and import it from there"
        )
    return f"{module}:{name.partition(':')[2]}"


def _new_ids(jobs: Sequence[NewJob]) -> list[str]:
    """Return the ids that were made here: nobody else can have put such a job."""
    return [new.id for new in jobs if new.options.job_id is None]


def _next_batch(jobs: Iterator[NewJob]) -> list[NewJob]:
    """Take jobs for one call of the store."""
    batch: list[NewJob] = []
    size = 0
    for new in islice(jobs, _BATCH):
        batch.append(new)
        size += len(new.envelope)
        if size > _BATCH_BYTES:
            break
    return batch


def _in_event_loop() -> bool:
    """Return whether the caller is a callback or coroutine of asyncio."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001  # get_running_loop raises


def _release(listeners: list[ResultListener], store: Store) -> None:
    """Let go of what an executor used that nobody holds any more."""
    listeners[0].stop(wait=False, then=store.close)

"""LocalExecutor, `local://`: jobs live in this process's memory and run in its own child processes."""

from __future__ import annotations

import os
import select
import weakref
from datetime import UTC, datetime
from itertools import count
from multiprocessing import get_all_start_methods
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from taskq import signatures
from taskq.errors import ConfigError, EncodeError, JobNotFound, PoolBroken, QueueClosed, RetryRefused
from taskq.executor import LEAVING_GRACE, Executor
from taskq.executors.cpus import usable_cpus
from taskq.executors.dependencies import failed_among, jobs_in, resolved, when_done
from taskq.executors.job_registry import JobRegistry
from taskq.executors.pool import payloads
from taskq.executors.pool.child import ChildSettings
from taskq.executors.pool.connection import ChildConnection
from taskq.executors.pool.functions import Function, definition, unwrap_callable
from taskq.executors.pool.jobs import DEFAULTS, LocalJob
from taskq.executors.pool.pool import ProcessPool
from taskq.executors.pool.processes import default_start_method
from taskq.options import JobOptions
from taskq.states import RETRIED, State
from taskq.tasks import name_of, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from taskq.executor import Selection, StreamPlan
    from taskq.executors.local_inspection import LocalInspection
    from taskq.executors.pool.local_map import LocalMap
    from taskq.job import Job
    from taskq.records import JobInfo, QueueInfo, WorkerInfo

__all__ = ["LocalExecutor"]

#: A job, its options, and what begins it: None where it goes straight to the dispatcher.
_Prepared: TypeAlias = "tuple[LocalJob, JobOptions, Callable[[], None] | None]"


class LocalExecutor(Executor):
    """Run jobs on this machine's cores. Settings as `TaskQueue` describes them."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"pickle", "start_methods"})

    def __init__(  # the settings of a pool, by name
        self,
        *,
        processes: int | None = None,
        start_method: str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        queues: Sequence[str] = (),
        strict: bool = False,
    ) -> None:
        _check(processes, start_method, initializer, max_tasks_per_child)
        self._preferred = [JobOptions(queue=name).queue for name in queues]
        self.processes: int = processes or usable_cpus()
        self.session = os.urandom(6).hex()
        self._start_method = start_method or default_start_method()
        self.strict = strict
        #: What children know of the functions that were submitted.
        self.functions: dict[Any, Function] = {}
        self._function_numbers = count()
        self._job_numbers = count(1)
        self._stream_numbers = count(1)
        self._registry = JobRegistry()
        self._streams: weakref.WeakSet[LocalMap] = weakref.WeakSet()
        self._finishes = False
        settings = ChildSettings(
            session=self.session,
            strict=strict,
            max_tasks=max_tasks_per_child,
            initializer=initializer,
            initargs=tuple(initargs),
        )
        #: The child processes.
        self.pool = ProcessPool(self.processes, self._start_method, settings, queues=self._preferred)
        # Bound here: each asks the pool alone.
        self.delivers_here = self.pool.delivers_here
        self.state_of = self.pool.state_of
        self.progress_of = self.pool.progress_of
        self.remember = self._registry.remember
        # A queue that is dropped without shutdown lets its processes go once its jobs, which hold it, are done.
        weakref.finalize(self, self.pool.finish_in_background).atexit = False

    # -- Executor

    def submit(  # noqa: C901  # the way of every job: no calls that it can do without
        self,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: JobOptions | None,
        ready: list[_Prepared] | None = None,
    ) -> Job[Any]:
        if not self.pool.accepting:
            raise self._refusal()
        try:
            function = self.functions[fn]
        except (KeyError, TypeError):
            function, args, kwargs = self._resolve(fn, args, kwargs)
        if ((len(args), *kwargs) if kwargs else len(args)) not in function.shapes:
            signatures.check(function.shapes, function.name, unwrap_callable(fn)[0], args, kwargs)
        if options is None:
            options = function.options
        number = next(self._job_numbers)
        if len(args) == 1 and type(args[0]) is bytes and not kwargs and options.job_id is None:
            job = LocalJob(self, function, number, args[0])
            job.bare_encoding = payloads.BARE_BYTES
            return self._admit(job, options, lambda: self._enqueue(job), ready)
        try:
            payload = payloads.pack_call(number, args, kwargs, strict=self.strict)
        except (payloads.JobInside, EncodeError):
            if not (needed := jobs_in((args, kwargs))):
                raise
            job = LocalJob(self, function, number, b"")
            return self._admit(job, options, lambda: self._wait_for(job, needed, args, kwargs), ready)
        if isinstance(payload, bytes):
            job = LocalJob(self, function, number, payload)
        else:
            job = LocalJob(self, function, number, b"")
            job.load(payload)
        if options is DEFAULTS:
            if ready is None:
                self.pool.submit(job)
            else:
                ready.append((job, options, None))
            return job
        return self._admit_named(job, options, args, kwargs, ready)

    def _admit_named(
        self,
        job: LocalJob,
        options: JobOptions,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        ready: list[_Prepared] | None,
    ) -> LocalJob:
        """Do as `_admit`; a job with an id of its own has it for its number."""
        if options.job_id is not None:
            job.load(payloads.pack_call(options.job_id, args, kwargs, strict=self.strict))
        return self._admit(job, options, lambda: self._enqueue(job), ready)

    def submit_many(
        self, fn: Callable[..., Any], calls: Iterable[Sequence[Any]], options: JobOptions | None
    ) -> list[Job[Any]]:
        ready: list[_Prepared] = []
        for args in calls:
            self.submit(fn, args, {}, options, ready)
        jobs: list[Job[Any]] = []
        try:
            for job, chosen, begin in ready:
                jobs.append(self._start(job, chosen, begin))  # kept on error
        except BaseException:
            # A job that stood there already is none of these, though it was the answer.
            begun = [job for job, *_ in ready[: len(jobs) + 1]]
            self.pool.cancel_now(begun)
            raise
        return jobs

    def _start(self, job: LocalJob, options: JobOptions, begin: Callable[[], None] | None) -> LocalJob:
        """Begin a job that was prepared; return it, or the one that has its key or id already."""
        if begin is not None:
            return self._admit(job, options, begin)
        self.pool.submit(job)
        return job

    def stream(
        self, fn: Callable[..., Any], items: Iterable[Any], plan: StreamPlan, options: JobOptions | None
    ) -> Iterator[Any]:
        if not self.pool.accepting:
            raise self._refusal()
        function, args, kwargs = self._resolve(fn, (), {})
        if args or kwargs:  # bound arguments go with the function, once for each child
            function = self._define(*unwrap_callable(fn))
        options = options or function.options
        for name in ("delay", "at", "expires", "key", "job_id"):
            if getattr(options, name) is not None:
                raise ConfigError(f"{name} is for single jobs: a map over items cannot have it; use submit")
        from taskq.executors.pool.local_map import LocalMap  # noqa: PLC0415  # 1 ms of every start, which jobs alone do not need

        stream = LocalMap(
            self.pool,
            function,
            items,
            plan,
            options,
            number=next(self._stream_numbers),
            session=self.session,
            strict=self.strict,
            processes=self.processes,
            on_end=self._streams.discard,
        )
        self._streams.add(stream)
        return stream.iterate()

    def find(self, job_id: str) -> Job[Any]:
        job = self._registry.find(job_id)
        if job is None:
            message = f"there is no job {job_id!r} here: local:// knows the jobs that this program holds a handle to"
            raise JobNotFound(message)
        return job

    def close(self, *, wait: bool = True, cancel: bool = False, grace: float | None = None) -> None:
        if self.pool.is_foreign():
            return
        self._take_no_more(cancel=cancel)
        if wait and not self.pool.delivers_here():
            self.pool.finish(grace)
        elif not self._finishes:
            self.pool.finish_in_background()
            self._finishes = True

    def _take_no_more(self, *, cancel: bool) -> None:
        """Close the queue for further work, and drop what waits if told to. Interrupted, it may be done again."""
        self.pool.accepting = False
        if cancel:
            self.pool.drop_waiting()
        self.pool.resume_all()  # what is paused would never end
        for stream in list(self._streams):
            stream.close(cancel=cancel)

    def leave(self, error: BaseException | None) -> None:
        if isinstance(error, KeyboardInterrupt) and not self.pool.is_foreign():
            self._take_no_more(cancel=True)
            self.pool.finish_at_once(LEAVING_GRACE)
        elif error is not None and not (self.pool.is_foreign() or self.pool.delivers_here()):
            self._take_no_more(cancel=True)
            self.pool.finish_after(error, LEAVING_GRACE)
        else:
            super().leave(error)

    def pause(self, queue: str) -> None:
        self.pool.pause(queue)

    def resume(self, queue: str) -> None:
        self.pool.resume(queue)

    # -- look and act

    def _look(self) -> LocalInspection:
        from taskq.executors.local_inspection import LocalInspection  # noqa: PLC0415  # 20 ms that few programs need

        return LocalInspection(self, self.pool, self._registry, self._preferred)

    def jobs(self, wanted: Selection) -> list[JobInfo]:
        look = self._look()
        return [look.info(job, arguments=False) for job in look.select(wanted)]

    def queues(self) -> list[QueueInfo]:
        return self._look().queues()

    def workers(self) -> list[WorkerInfo]:
        return [] if self.pool.ended.is_set() else [self._look().worker(self.processes)]

    def retry_all(self, wanted: Selection) -> int:
        if not self.pool.accepting:
            raise self._refusal()
        return sum(self._run_again(job) is not None for job in self._look().select(wanted))

    def purge(self, wanted: Selection) -> int:
        gone = [job for job in self._look().select(wanted) if job.done() or job.cancel()]
        for job in gone:
            self._registry.forget(job)
        return len(gone)

    def end_processes(self, *, kill: bool) -> None:
        self._take_no_more(cancel=True)
        word, end = ("kill", ChildConnection.kill) if kill else ("terminate", ChildConnection.terminate)
        self.pool.end_at_once(f"{word}_workers() has ended the process that ran this job", end, LEAVING_GRACE)

    # -- owner of its jobs

    def info_of(self, job: LocalJob) -> JobInfo:
        self._refuse_forgotten(job)
        return self._look().info(job, arguments=True)

    def retry(self, job: LocalJob) -> LocalJob:
        if not self.pool.accepting:
            raise self._refusal()
        if (state := job.state) not in RETRIED:
            raise RetryRefused(f"job {job.id} is {state}: only what failed or was cancelled can be run again")
        self._refuse_forgotten(job)
        again = self._run_again(job)
        if again is None:
            why = "it has been already, a new job has its key, or a job that it needed failed"
            raise RetryRefused(f"job {job.id} cannot be run again: {why}: submit it again")
        return again

    def _refuse_forgotten(self, job: LocalJob) -> None:
        if job.over_at is not None and self._registry.find(job.id) is None:
            raise JobNotFound(f"there is no job {job.id!r} here any more: its time is over, or it was purged")

    def _run_again(self, job: LocalJob) -> LocalJob | None:
        """Queue a job that ended as if new; return its new handle, None where that cannot be."""
        if not job.payload and job.bare_encoding != payloads.BARE_BYTES:
            return None
        options = job.options or DEFAULTS
        again = LocalJob(self, job.function, job.number, job.payload)
        again.options, again.bare_encoding = job.options, job.bare_encoding
        again.call, again.depends_on = job.call, job.depends_on
        if not self._registry.succeed(job, again, options):
            return None
        if options.expires is not None:
            self.pool.expire_at(monotonic() + options.expires, again)
        self.pool.post(again)
        return again

    def cancel(self, job: LocalJob, *, kill: bool) -> bool:
        if job.done():
            return job.cancelled()
        return self.pool.cancel(job, kill=kill)

    # -- submitting

    def _resolve(
        self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Function, Sequence[Any], Mapping[str, Any]]:
        """Return the function as the children know it, and the arguments with those that were bound to it in front."""
        plain, bound, bound_kwargs = unwrap_callable(fn)
        function = self.functions.get(plain)
        if function is None:
            function = self.functions[plain] = self._define(plain, (), {})
        return function, (*bound, *args), {**bound_kwargs, **kwargs}

    def _define(self, plain: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Function:
        described = definition(plain, args, kwargs, start_method=self._start_method, strict=self.strict)
        options = options_of(plain)
        return Function(
            next(self._function_numbers),
            name_of(plain),
            described,
            DEFAULTS if options == DEFAULTS else options,
            bound=bool(args or kwargs),
        )

    def _admit(
        self, job: LocalJob, options: JobOptions, begin: Callable[[], None], ready: list[_Prepared] | None = None
    ) -> LocalJob:
        """Give a job its options and begin it, unless one with the same key or id is there: then that one is it.

        Where there is a list of what is `ready`, it is put there instead.
        """
        job.options = options
        if ready is not None:
            ready.append((job, options, begin))
            return job
        try:
            return self._begin(job, options, begin)
        except BaseException:
            self.pool.post(lambda: self._take_back(job, options))
            raise

    def _begin(self, job: LocalJob, options: JobOptions, begin: Callable[[], None]) -> LocalJob:
        if options.key is not None or options.job_id is not None or options.result_ttl is not None:
            known = self._registry.admit(job, options)
            if known is not job:
                return known
        if options.expires is not None:
            expires_at = monotonic() + options.expires
            self.pool.expire_at(expires_at, job)
        begin()
        return job

    def _take_back(self, job: LocalJob, options: JobOptions) -> None:
        """End a job whose submit was interrupted, or refused; nobody has its handle."""
        self._registry.dismiss(job, options)
        if job.waiting is not State.BLOCKED:  # else those that it waits for release it
            self.pool.cancel_now([job])

    def _enqueue(self, job: LocalJob) -> None:
        """Queue a job now or at its time."""
        options = job.options or DEFAULTS
        delay = options.delay or 0.0
        if options.at is not None:
            delay = (options.at - datetime.now(UTC)).total_seconds()
        if delay <= 0:
            self.pool.post(job)
            return
        job.waiting = State.SCHEDULED
        due = monotonic() + delay
        self.pool.submit_at(due, job)

    def _wait_for(self, job: LocalJob, needed: list[Job[Any]], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Queue a job when the jobs among its arguments have ended."""
        job.waiting = State.BLOCKED
        job.call, job.depends_on = (args, kwargs), tuple(parent.id for parent in needed)
        pool = self.pool
        counted: list[int] = []

        def block() -> None:
            pool.count_blocked(1)
            counted.append(1)

        def release() -> None:
            if counted:
                self._release(job, needed, args, kwargs)
                pool.post(unblock)

        def unblock() -> None:
            if counted:
                pool.count_blocked(-counted.pop())

        def drop() -> None:
            if counted and not job.done():
                job.withdraw()
            unblock()

        try:
            pool.post(block)
            when_done(needed, lambda: pool.post(release))
        except BaseException:  # not all of them will tell
            pool.post(drop)
            raise

    def _release(self, job: LocalJob, needed: list[Job[Any]], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Queue a job whose jobs have ended, or fail it with one of them."""
        job.waiting = None
        try:
            error: BaseException | None = failed_among(needed, job.id)
            if error is None and not job.done():
                name = (job.options or DEFAULTS).job_id or job.number
                job.load(payloads.pack_call(name, *resolved(args, kwargs), strict=self.strict))
                self._enqueue(job)
        except Exception as failure:  # noqa: BLE001  # a result that cannot be rebuilt or sent on: the job's failure
            error = failure
        if error is not None and not job.done():
            job.attempt = 0
            job.settle(None, error)

    # -- the end

    def _refusal(self) -> Exception:
        if self.pool.is_foreign():
            return QueueClosed("this queue was made before the process forked: make a new TaskQueue in the child")
        if self.pool.broken is not None:
            return PoolBroken(self.pool.broken)
        return QueueClosed("the queue was shut down: make a new TaskQueue to run more")


def _check(processes: object, start_method: object, initializer: object, max_tasks: object) -> None:
    if not hasattr(select, "poll"):
        raise ConfigError(
            "a library of green threads (eventlet) has taken select.poll out of this program; a local pool needs it: "
            "patch with select=False, use gevent, or submit to a queue of workers, as sqlite:///path"
        )
    if processes is not None and (type(processes) is not int or processes < 1):
        raise ConfigError(f"processes={processes!r}: give a whole number from 1, or None for one per usable CPU")
    if start_method is not None and start_method not in get_all_start_methods():
        choice = ", ".join(get_all_start_methods())
        raise ConfigError(f"start_method={start_method!r}: this platform has {choice}")
    if initializer is not None and not callable(initializer):
        raise ConfigError(f"initializer={initializer!r} is not callable: give a function, its arguments in initargs")
    if max_tasks is not None and (type(max_tasks) is not int or max_tasks < 1):
        raise ConfigError(f"max_tasks_per_child={max_tasks!r}: give a whole number from 1, or None for no limit")

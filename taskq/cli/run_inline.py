"""The wait of `taskq submit --wait`: for the end of the job, or as its worker where no other is there.

    main thread      waits for the end of the job, sees to signals, looks whether workers have gone
    a thread         Worker(store, only=job): claims the job, runs it on a pool of one process, tells the store

Ctrl-C raises KeyboardInterrupt in the job, so that it tidies up, and gives it back: it was kept, and so it stays.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from threading import Thread
from typing import TYPE_CHECKING, Any

from taskq import log
from taskq.allowlist import COMMAND
from taskq.cli.arguments import import_from_here
from taskq.cli.stores import LOOK, ends, keep_password, served
from taskq.cli.streams import claimed_stdout
from taskq.cli.tell import say
from taskq.connect import open_worker
from taskq.envelope import head
from taskq.errors import JobLost
from taskq.executor import LEAVING_GRACE
from taskq.states import TERMINAL, State
from taskq.store import WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.cli.options import Request
    from taskq.store import JobRecord, Store

__all__ = ["outcome_of", "take_from_the_dead"]

#: What a worker's run returns when it had to kill what ran.
FORCED = 1

#: Seconds between two looks at whether there is still a worker for the job.
LOOK_ROUND = 5.0

#: Seconds that an interrupted job gets before it is said that it gets no more than the grace.
MOMENT = 0.3

#: Seconds that the worker in this process gets to put back what it holds, beyond the grace.
SIGN_OFF = 10.0


def outcome_of(store: Store, job_id: str, request: Request) -> tuple[JobRecord, bool]:
    """Return a job when it has ended, and whether it ran here, so that its output was seen.

    Raises:
        JobLost: the store no longer has it.
    """
    here = False
    try:
        while True:
            record = _record(store, job_id)
            if record.state in TERMINAL:
                return record, here
            here = not served(store, record.queue)
            if not here:
                _wait_elsewhere(store, record)
            elif record.state is State.RUNNING:
                take_from_the_dead(store)
            else:
                _run_here(store, record, request)
    except KeyboardInterrupt:
        say(f"interrupted; job {job_id} is kept: taskq wait {job_id} waits for it, taskq cancel {job_id} drops it")
        raise


def _record(store: Store, job_id: str) -> JobRecord:
    (record,) = store.get([job_id], payload=True)
    if record is None:
        raise JobLost(f"job {job_id} is no longer in {store.url}", job_id=job_id)
    return record


def _wait_elsewhere(store: Store, record: JobRecord) -> None:
    """Return when the job has ended, or when no worker serves its queue."""
    looked, told = time.monotonic(), False
    for _ in ends(store, [record.id], None):
        told = told or _tell_refusal(store, record.id)
        if time.monotonic() - looked > LOOK_ROUND:
            looked = time.monotonic()
            if not served(store, record.queue):
                return


def _tell_refusal(store: Store, job_id: str) -> bool:
    """Report that a worker has refused the job and none runs it; return whether there was something to report."""
    (record,) = store.get([job_id])
    if record is None or record.state in TERMINAL or record.refusal is None:
        return False
    say(f"job {job_id} still waits: a worker refused it: {' '.join(record.refusal.message.split())}")
    return True


def take_from_the_dead(store: Store) -> None:
    """Requeue jobs of dead workers, as any worker does; without any, wait a moment for one that is stopping."""
    me = WorkerRecord(name=f"submit-{os.getpid()}", host=socket.gethostname(), pid=os.getpid(), queues=(), processes=0)
    session = store.join(me)
    try:
        put_back = session.run_maintenance()
    finally:
        session.leave()
    if not put_back:
        time.sleep(LOOK)


def _run_here(store: Store, record: JobRecord, request: Request) -> None:
    """Be the worker for this one job until it has ended; what a task prints goes to stderr, a command's where it is."""
    import_from_here()
    keep_password()
    if not request.verbose:  # the outcome tells what became of the job, no log of a worker
        log.configure(log.chosen_format() or "console", "critical")
    task = head(record.envelope).task
    settings: dict[str, Any] = {
        "queues": (record.queue,),
        "processes": 1,
        "only": record.id,
        "imports": () if task == COMMAND or request.unchecked else (task,),
        "allow_commands": task == COMMAND,
        "capture": False,
        "grace": LEAVING_GRACE,
        "interrupts": True,
    }
    passes = task == COMMAND and not request.as_json
    place = contextlib.nullcontext() if passes else claimed_stdout()
    with place, _working(store, settings) as thread:
        for _ in ends(store, [record.id], None):
            if not thread.is_alive():
                return


@contextlib.contextmanager
def _working(store: Store, settings: dict[str, Any]) -> Iterator[Thread]:
    """Have a worker run in a thread during the block; what ended it early is raised."""
    worker = open_worker(store, **settings)
    errors: list[BaseException] = []
    codes: list[int] = []

    def run() -> None:
        try:
            codes.append(worker.run())
        except BaseException as exc:  # noqa: BLE001 - it is raised in the main thread
            errors.append(exc)

    thread = Thread(target=run, name="taskq-worker", daemon=True)
    thread.start()
    interrupted = False
    try:
        yield thread
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        worker.stop()
        thread.join(MOMENT)
        if thread.is_alive() and not interrupted:  # the job has ended; the worker signs off
            thread.join(SIGN_OFF)
        elif thread.is_alive():
            say(f"interrupted, and with it the running job; if it runs on for {LEAVING_GRACE:g} s it is killed")
            thread.join(LEAVING_GRACE + SIGN_OFF)
            if codes == [FORCED]:
                say("killed the running job")
    if errors:
        raise errors[0]

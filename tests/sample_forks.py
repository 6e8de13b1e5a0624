"""Tasks that fork, in every way that there is, and copies of their process that end in every way."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from taskq import TaskQueue, current_job
from taskq.errors import NotInJob
from tests.ledger import note
from tests.sample_tasks import hold, square

if TYPE_CHECKING:
    from collections.abc import Callable

TRUE = "/bin/true"


def _exec() -> None:
    os.execv(TRUE, [TRUE])  # noqa: S606  # what a copy of a process may do


def _raise() -> None:
    raise ValueError("in the copy")


def _leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()


def _fork_again() -> None:
    if os.fork() == 0:
        sys.exit(9)
    os.wait()


#: How a copy of a job's process ends, and the exit code to which that comes.
ENDINGS: dict[str, tuple[Callable[[], object], int]] = {
    "return": (lambda: None, 0),
    "exit": (sys.exit, 0),
    "exit with a code": (lambda: sys.exit(3), 3),
    "exit with a text": (lambda: sys.exit("why"), 1),
    "exception": (_raise, 1),
    "at once": (lambda: os._exit(4), 4),
    "exec": (_exec, 0),
    "with a daemon thread": (_leave_a_thread, 0),
    "after a copy of its own": (_fork_again, 0),
}


def fork_and_wait(ending: str) -> int:
    """Fork; the copy ends in one of the ways; give its exit code."""
    child = os.fork()
    if child == 0:
        ENDINGS[ending][0]()
        return -1
    return _code_of(child)


async def fork_in_coroutine(ending: str) -> int:
    """Do so in a coroutine."""
    await asyncio.sleep(0)
    return fork_and_wait(ending)


def fork_in_thread(ending: str) -> int:
    """Do so in a thread of the job."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(fork_and_wait(ending)))
    thread.start()
    thread.join()
    return found[0]


def fork_and_write(path: str) -> int:
    """Fork; the copy leaves a file that it has not closed."""
    child = os.fork()
    if child == 0:
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115  # the point is that nobody closes it
        file.write("written")
        sys.exit()
    return _code_of(child)


def fork_at(ledger: str, forking: frozenset[int], item: int) -> int:
    """Note the item; fork at some, and let the copy return, too."""
    note(ledger, str(item))
    if item in forking:
        child = os.fork()
        if child == 0:
            return -1
        _code_of(child)
    return item


def leave_a_copy(gate: str) -> tuple[int, int]:
    """Fork and go on; the copy returns when the test opens the gate. Give the process of the job, and the copy."""
    child = os.fork()
    if child == 0:
        hold(gate)
        return -1, -1
    return os.getpid(), child


def ask_in_copy(ledger: str) -> str:
    """Fork; the copy notes what it can learn of the job, and what it is refused."""
    child = os.fork()
    if child == 0:
        job = current_job()
        note(ledger, job.id)
        for ask in (lambda: job.progress(1), lambda: job.cancelled, lambda: job.meta.update(a=1)):
            try:
                ask()
            except NotInJob as refusal:
                note(ledger, str(refusal))
        return "copy"
    _code_of(child)
    return current_job().id


def square_in_processes(method: str) -> list[int]:
    """Use multiprocessing in a job: a pool, and a process that ends by itself."""
    context = multiprocessing.get_context(method)
    process = context.Process(target=sys.exit, args=(5,))  # type: ignore[attr-defined]
    process.start()
    process.join()
    with context.Pool(1) as pool:
        return [process.exitcode, *pool.map(abs, [-1, -2])]


def square_in_queue_of_copy() -> int:
    """Fork; the copy makes a queue in its own memory. Give 0 if that was right."""
    child = os.fork()
    if child == 0:
        with TaskQueue("local://", processes=1) as queue:
            sys.exit(queue.submit(square, 3).result(timeout=30) != 9)
    return _code_of(child)


def run_with_preexec() -> int:
    """Start a program with a function that is called in the copy before it."""
    return subprocess.run([TRUE], preexec_fn=os.getpid, check=False).returncode  # the point


def leave_an_orphan() -> int:
    """Start a program that starts another and ends; give the other."""
    return int(
        subprocess.run(["/bin/sh", "-c", "sleep 0.1 >/dev/null & echo $!"], check=True, capture_output=True).stdout
    )


def is_there(process: int) -> bool:
    """Tell whether there is a process of this number, were it a zombie, as the job's process sees it."""
    return os.path.exists(f"/proc/{process}")


def _code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

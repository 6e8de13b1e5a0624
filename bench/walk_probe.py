"""One walk in a process of its own: a job is run again and again while each call inside taskq is written down.

    bench.walk ──▶ client: this file ──▶ taskq ──▶ worker: this file, then `taskq worker` ──▶ child: `record`, as a job
                          └───────────────────────────────┴─────────────────────────────────────┘
                                        FOLDER/<process id>: one line for each call

`sys.setprofile` sees each call, and a line goes to the file at once: a process may end in any way.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from taskq.queue import Submitter

ROOT = Path(__file__).resolve().parent.parent
#: The folders whose files are rooms. `taskq/executors` is a link in a checkout: the file behind it counts.
HOUSES = ("taskq", "executors")
#: Blocks that Python 3.11 still calls as functions, and 3.12 does not.
COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
#: Jobs before the measured ones; the first of them starts to record in the child.
WARM_UP = 5
#: Seconds of rest before and behind each measured job: an idle pool, and the last words about a job.
REST_S = 0.3
#: Seconds behind a result that still belong to the job.
AFTER_S = 0.02
LIMIT_S = 30.0


def record(folder: str) -> int:
    """Write down every call of this process from now on; return its id."""
    target = os.open(Path(folder, str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    rooms: dict[CodeType, str | None] = {}
    clock, thread, write = time.monotonic_ns, threading.get_ident, os.write

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            code = frame.f_code
            if code not in rooms:
                rooms[code] = room_of(code.co_filename, code.co_name)
            if room := rooms[code]:
                write(target, f"{clock()} {thread()} {room} {code.co_qualname}\n".encode())

    os.register_at_fork(after_in_child=_stop)
    if sys.version_info >= (3, 12):
        threading.setprofile_all_threads(note)
    else:
        threading.setprofile(note)
    sys.setprofile(note)
    return os.getpid()


def room_of(filename: str, function: str) -> str | None:
    """Return the path of a room inside the checkout; None for what is not ours, and for a comprehension."""
    path = Path(os.path.realpath(filename))
    if function in COMPREHENSIONS or not path.is_relative_to(ROOT):
        return None
    inside = path.relative_to(ROOT)
    return str(inside) if inside.parts[0] in HOUSES else None


def _stop() -> None:
    """Stop in a forked process: its calls would stand in its parent's file."""
    threading.setprofile(None)
    sys.setprofile(None)


def same(value: Any) -> Any:
    """Return the argument: the job."""
    return value


def run_one(queue: Submitter) -> None:
    """Run one job."""
    queue.submit(same, 1).result(LIMIT_S)


def run_map(queue: Submitter) -> None:
    """Run a map of three items."""
    list(queue.imap_unordered(same, range(3)))


def run_client(job: str, url: str, folder: str, times: int) -> list[tuple[int, int]]:
    """Run a job so many times; return from when to when each was on its way, in nanoseconds.

    `job`: direct; timeout: by the dispatcher, which must look after it, by a view made before; map: a map of three.
    """
    record(folder)
    taskq = importlib.import_module("taskq")
    spans = []
    options: dict[str, Any] = {"processes": 1} if url.startswith("local") else {}
    with ExitStack() as stack:
        queue = stack.enter_context(taskq.TaskQueue(url, **options))
        queue.submit(record, folder).result(LIMIT_S)
        view = queue.options(timeout=LIMIT_S) if job == "timeout" else queue
        run = run_map if job == "map" else run_one
        for number in range(WARM_UP + times):
            time.sleep(REST_S)
            begin = time.monotonic_ns()
            run(view)
            end = time.monotonic_ns() + int(AFTER_S * 1e9)
            time.sleep(REST_S)
            if number >= WARM_UP:
                spans.append((begin, end))
    return spans


def run_worker(url: str, folder: str) -> None:
    """Run `taskq worker` with one process in this one."""
    record(folder)
    sys.argv = ["taskq", "worker", "--url", url, "--processes", "1", "--import", __name__]
    importlib.import_module("taskq.cli").main()

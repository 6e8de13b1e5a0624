"""Tasks for tests to submit: small functions of every kind, in a light module that child processes import by name."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskq import current_job, task
from taskq.errors import JobCancelled, SoftTimeout
from tests.ledger import note
from tests.seams import executor_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds after which a waiting job gives up; above the tests' own patience, so that a test fails first.
LIMIT = 100.0

#: Seconds between two looks of a waiting job.
INTERVAL = 0.005

#: What the initializers below leave for later jobs of the same process.
settings: dict[str, object] = {}


# --- plain values


def add(left: Any, right: Any) -> Any:
    """Add."""
    return left + right


def square(number: int) -> int:
    """Square."""
    return number * number


def identity(value: Any) -> Any:
    """Give back what was sent."""
    return value


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give back how it was called."""
    return args, kwargs


def total(numbers: Any) -> Any:
    """Add up numbers, as those that other jobs gave."""
    return sum(numbers)


def nothing() -> None:
    """Do nothing."""


def size_of(data: bytes) -> int:
    """Measure bytes."""
    return len(data)


def zeros(size: int) -> bytes:
    """Make many bytes."""
    return bytes(size)


def pid() -> int:
    """Tell which process runs this."""
    return os.getpid()


def clock() -> float:
    """Tell what time it is where this runs, in seconds since 1970."""
    return time.time()


def pid_after_nap(seconds: float) -> int:
    """Sleep, and tell which process ran this."""
    time.sleep(seconds)
    return os.getpid()


def pid_of(_item: object) -> int:
    """Tell which process runs this item."""
    return os.getpid()


def bits_of(number: int) -> int:
    """Do some honest work on the CPU: about a millisecond."""
    return sum((number + step).bit_count() for step in range(5_000))


class Thing:
    """An object that can be watched."""

    def touch(self) -> None:
        """Do nothing, with the object."""


def make_thing(_item: object) -> Thing:
    """Make one."""
    return Thing()


# --- functions of every kind


class Arithmetic:
    """Methods of every kind."""

    factor = 3

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset

    def shifted(self, number: int) -> int:
        """Use the object it is bound to."""
        return number + self.offset

    def __call__(self, number: int) -> int:
        """Be a callable object."""
        return number - self.offset

    @classmethod
    def tripled(cls, number: int) -> int:
        """Use the class."""
        return cls.factor * number

    @staticmethod
    def doubled(number: int) -> int:
        """Use nothing but the argument."""
        return 2 * number


async def add_slowly(left: int, right: int) -> int:
    """Add in a coroutine, after a turn of the event loop."""
    await asyncio.sleep(0)
    return left + right


async def fail_slowly(text: str) -> None:
    """Raise in a coroutine."""
    await asyncio.sleep(0)
    raise ValueError(text)


async def running_loop() -> str:
    """Tell which event loop runs this coroutine."""
    return type(asyncio.get_running_loop()).__name__


@task(timeout=20, priority=3)
def decorated(number: int) -> int:
    """Be a task with options, and an ordinary function."""
    return number + 1


@task(timeout=0.5)
def decorated_hanging() -> None:
    """Hang longer than the timeout of its decorator."""
    time.sleep(LIMIT)


def make_closure() -> Callable[[], int]:
    """Return a function that no other process can import."""
    value = 1

    def inner() -> int:
        return value

    return inner


lambda_at_top = lambda number: number  # noqa: E731 - the point is that it is one


# --- jobs that tell the test what they do


def note_item(ledger: str, item: object) -> Any:
    """Note the item, and give it back."""
    note(ledger, str(item))
    return item


def note_and_nap(ledger: str, item: object, seconds: float) -> Any:
    """Note the item, sleep, note its end, give it back."""
    note(ledger, f"start {item}")
    time.sleep(seconds)
    note(ledger, f"end {item}")
    return item


def note_of(arguments: tuple[str, int, float]) -> int:
    """Do as `note_and_nap`, of one argument."""
    note_and_nap(*arguments)
    return arguments[1]


def fail_at_multiples(number: int) -> int:
    """Fail at multiples of seven."""
    return fail_at(number if not number % 7 else -1, number)


def make_set(item: int) -> set[int]:
    """Return a small object to which a weak reference can be had, and that travels."""
    return {item}


def nap(seconds: float) -> float:
    """Sleep, and give back how long."""
    time.sleep(seconds)
    return seconds


def hold(gate: str, ledger: str | None = None, text: str = "held") -> str:
    """Note the start, then wait until the test opens the gate."""
    if ledger is not None:
        note(ledger, text)
    deadline = time.monotonic() + LIMIT
    while not os.path.exists(gate):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened {gate}")
        time.sleep(INTERVAL)
    return text


def hold_seen(gate: str, ledger: str, text: str) -> str:
    """Note the start and report it, so that whoever reads that knows that the store has heard of it; then hold."""
    note(ledger, text)
    current_job().progress(1)
    return hold(gate) and text


def hold_and_sign(gate: str, ledger: str) -> int:
    """Note start and end, wait at the gate in between, and tell which process ran this."""
    note(ledger, "start")
    hold(gate)
    note(ledger, "end")
    return os.getpid()


def hold_then_fail(gate: str, text: str) -> None:
    """Wait until the test opens the gate, then raise."""
    hold(gate)
    raise ValueError(text)


def hold_item(gate: str, ledger: str, blocked: object, item: object) -> Any:
    """Note the item; if it is the blocked one, wait at the gate."""
    note(ledger, str(item))
    if item == blocked:
        hold(gate)
    return item


def job_facts() -> tuple[str, int]:
    """Tell what `current_job()` knows: id and attempt."""
    job = current_job()
    return job.id, job.attempt


def report_progress(gate: str, done: int, of: int | None) -> str:
    """Report how far it is, then wait at the gate."""
    current_job().progress(done, of)
    return hold(gate)


def stop_when_cancelled(ledger: str) -> str:
    """Work until the job is asked to stop."""
    note(ledger, "started")
    deadline = time.monotonic() + LIMIT
    while not current_job().cancelled:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody cancelled")
        time.sleep(INTERVAL)
    note(ledger, "stopped")
    return "stopped"


# --- errors


def divide(left: int, right: int) -> float:
    """Divide."""
    return left / right


def fail(kind: str, *args: Any) -> None:
    """Raise the class of this name with these arguments."""
    raise class_of(kind)(*args)


def class_of(name: str) -> type[BaseException]:
    """Find an exception class by its name, "ValueError" or "tests.sample_errors.Plain": classes are no values."""
    module, _, attribute = name.rpartition(".")
    found: type[BaseException] = getattr(import_module(module or "builtins"), attribute)
    return found


def fail_at(bad: int, item: int) -> int:
    """Raise at one item, else give it back."""
    if item == bad:
        raise ValueError(f"item {item} is bad")
    return item


def stop_iteration(_item: object) -> None:
    """Raise what ends a loop when it is let through."""
    raise StopIteration("not the end")


def fail_until(ledger: str, attempt: int, kind: str = "ValueError") -> int:
    """Note each attempt and raise, until the attempt of this number."""
    note(ledger, "attempt")
    if current_job().attempt < attempt:
        raise class_of(kind)(f"attempt {current_job().attempt}")
    return current_job().attempt


def fail_item_once(ledger: str, bad: frozenset[int], item: int) -> int:
    """Note the item; raise on the first attempt of a bad one."""
    note(ledger, str(item))
    if item in bad and Path(ledger).read_text(encoding="utf-8").count(f" {item}\n") == 1:
        raise OSError(f"item {item} fails once")
    return item


# --- jobs that will not end


def spin_in_c() -> int:
    """Hold the interpreter in C for years, deaf to every signal that Python handles."""
    return sum(range(10**13))


def spin_in_regex() -> bool:
    """Search for years in one call of the regular expression engine."""
    return re.match(r"(a|aa)+$", "a" * 100 + "b") is not None


def sleep_deaf() -> None:
    """Sleep with every signal blocked that can be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(LIMIT)


def sleep_at(bad: frozenset[int], item: int) -> int:
    """Hang at the bad items, else give them back."""
    if item in bad:
        time.sleep(LIMIT)
    return item


def tidy_up_at_soft_timeout(ledger: str) -> str:
    """Sleep until the soft timeout interrupts, then tidy up and return."""
    try:
        time.sleep(LIMIT)
    except SoftTimeout:
        note(ledger, "tidied")
        return "tidied"
    return "overslept"


def ignore_soft_timeout() -> None:
    """Swallow the soft timeout and go on."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            time.sleep(LIMIT)
        except SoftTimeout:
            continue


def start_grandchild(ledger: str, gate: str) -> str:
    """Start a program that sleeps, note its pid, then wait at the gate."""
    with subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LIMIT})"]) as program:
        note(ledger, f"grandchild {program.pid}")
        hold(gate)
        program.kill()
    return "done"


# --- jobs that die


def die(number: int = signal.SIGKILL) -> None:
    """Kill the process that runs this."""
    signal.signal(number, signal.SIG_DFL) if number not in {signal.SIGKILL, signal.SIGSTOP} else None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    time.sleep(LIMIT)
    raise AssertionError(f"survived signal {number}")


def note_and_die(ledger: str, number: int = signal.SIGKILL) -> None:
    """Note the start, then kill the process that runs this."""
    note(ledger, "start")
    die(number)


def kill_worker(ledger: str) -> None:
    """Note the start, then take down the worker, which takes its processes with it."""
    note(ledger, "poison")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def exit_process(code: int) -> None:
    """End the process at once, past every handler."""
    os._exit(code)


def die_until(ledger: str, attempt: int) -> int:
    """Note each attempt and kill the process, until the attempt of this number."""
    note(ledger, "attempt")
    if Path(ledger).read_text(encoding="utf-8").count(" attempt\n") < attempt:
        die()
    return current_job().attempt


def die_at(ledger: str, bad: frozenset[int], item: int) -> int:
    """Note the item; kill the process at a bad one, else give it back."""
    note(ledger, str(item))
    if item in bad:
        die()
    return item


def die_at_once(ledger: str, bad: frozenset[int], item: int) -> int:
    """Note the item; kill the process at the first run of a bad one."""
    note(ledger, str(item))
    if item in bad and Path(ledger).read_text(encoding="utf-8").count(f" {item}\n") == 1:
        die()
    return item


# --- initializers


def remember(value: object) -> None:
    """Initialize: leave a value for the jobs of this process."""
    settings["value"] = value


def recall() -> object:
    """Give what the initializer left."""
    return settings.get("value")


def fail_to_initialize(text: str) -> None:
    """Initialize: raise."""
    raise ValueError(text)


def threads() -> int:
    """Count the threads of the process that runs this."""
    return threading.active_count()


def cancel_by_exception(ledger: str) -> None:
    """Work until the job is asked to stop, then end as cancelled."""
    stop_when_cancelled(ledger)
    raise JobCancelled("stopped half way")


def see_cancelled() -> bool:
    """Tell whether this job is asked to stop."""
    return current_job().cancelled


def retry_then_die_then_succeed(ledger: str) -> str:
    """Fail, die, fail, die, succeed: which, is told by how many lines there are."""
    lines = Path(ledger).read_text(encoding="utf-8").count("\n")
    text = ("error", "crash", "error", "crash", "done")[lines]
    note(ledger, text)
    if text == "error":
        raise OSError("try again")
    if text == "crash":
        die()
    return text


def raise_timeout_error() -> None:
    """Raise what looks like the pool's."""
    raise TimeoutError("the task's own")


def facts_of_item(_item: object) -> tuple[str, int]:
    """Tell what `current_job()` knows in an item of a map."""
    return job_facts()


def hold_after_many_reports(gate: str, count: int) -> str:
    """Report progress very often, then wait at the gate."""
    for done in range(1, count + 1):
        current_job().progress(done, count)
    return hold(gate)


def context_in_a_thread() -> str:
    """Tell the id of the current job as a thread of this job sees it."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(current_job().id))
    thread.start()
    thread.join()
    return found[0]


def note_and_remember(ledger: str, value: object) -> None:
    """Initialize: note the process, and leave a value for its jobs."""
    note(ledger, "initialized")
    remember(value)


def recall_item(_item: object) -> object:
    """Give what the initializer left, for an item of a map."""
    return recall()


def use_multiprocessing(number: int) -> int:
    """Square in a child process of this one."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(square, (number,))


def signal_oneself(number: int) -> str:
    """Send this process a signal that it should not mind."""
    os.kill(os.getpid(), number)
    time.sleep(0.05)
    return "undisturbed"


def handler_of(number: int) -> str:
    """Tell what this process does at a signal."""
    found = signal.getsignal(number)
    return getattr(found, "__qualname__", str(found))


# --- what a job tells the outside


def queue_of_job() -> str:
    """Tell the queue from which this job was taken."""
    return current_job().queue


def log_and_hold(gate: str, *lines: str) -> str:
    """Log lines, then wait at the gate."""
    for line in lines:
        current_job().log(line)
    return hold(gate)


def log_and_leave() -> None:
    """Say something in every way that is kept with the job."""
    job = current_job()
    job.log("a line\n")
    job.meta["seen"] = True
    job.progress(1, 2)


def set_meta_and_hold(gate: str, **values: Any) -> str:
    """Leave facts about this job for the outside, then wait at the gate."""
    for name, value in values.items():
        current_job().meta[name] = value
    return hold(gate)


def print_and_hold(gate: str, out: str, err: str) -> str:
    """Print to stdout and to stderr, then wait at the gate."""
    print(out, flush=True)
    print(err, file=sys.stderr, flush=True)
    return hold(gate)


def meta_of_attempts() -> list[int]:
    """Note each attempt in the job's meta, fail in the first, and tell what is there in the second."""
    job = current_job()
    job.meta["attempts"] = [*job.meta.get("attempts", []), job.attempt]
    if job.attempt == 1:
        raise OSError("once more")
    return list(job.meta["attempts"])


def submit_to_own_queue(number: int) -> tuple[str, int]:
    """Submit a job to the queue that runs this one; return that one's URL and what the job came to."""
    from taskq import TaskQueue  # noqa: PLC0415

    queue = TaskQueue()
    job = queue.submit(square, number)
    result: int = job.result(timeout=20)
    return str(executor_of(queue).url), result


def wait_in_each_way(url: str) -> list[str]:
    """Wait for jobs of another queue in every way there is, each in a thread; return the ids of those with a handle."""
    from taskq import TaskQueue  # noqa: PLC0415

    async def awaited(job: Any) -> Any:
        return await job

    ways: list[Callable[[Any], object]] = [
        lambda job: job.result(LIMIT),
        lambda job: job.exception(LIMIT),
        lambda job: futures.wait([job], LIMIT),
        lambda job: list(futures.as_completed([job], LIMIT)),
        lambda job: asyncio.run(awaited(job)),
    ]
    queue = TaskQueue(url)
    maps: list[Callable[[], object]] = [
        lambda: list(queue.map(square, [1, 2])),
        lambda: list(queue.imap(square, [3, 4])),
        lambda: list(queue.imap_unordered(square, iter([5, 6]))),
    ]
    jobs = queue.submit_many(square, [(number,) for number in range(len(ways))])
    with futures.ThreadPoolExecutor(len(ways) + len(maps)) as threads:
        waits = [threads.submit(way, job) for way, job in zip(ways, jobs, strict=True)]
        waits += [threads.submit(each) for each in maps]
        for wait in waits:
            wait.result(LIMIT)
    queue.shutdown()
    return [job.id for job in jobs]


def keys_in_sight() -> list[str]:
    """Return what the environment says of keys."""
    return [name for name in os.environ if "SIGNING" in name]


def say_odd_texts(text: str, **named: str) -> dict[str, Any]:
    """Use texts with lone surrogates in every way that a job has."""
    job = current_job()
    job.meta[text] = text
    job.log(f"log {text}")
    job.progress(1, 2)
    return {text: [text, (text,), {text}, named]}


def raise_odd_text(text: str) -> None:
    """Raise an exception with such a text."""
    raise ValueError(text, {text: 1})


def sum_here(array: Any) -> Any:
    """Import numpy where it is needed, as tasks do."""
    import numpy as np  # noqa: PLC0415

    return np.asarray(array).sum()


def tidy_up_when_interrupted(ledger: str, item: int) -> int:
    """Note the start, run until something is raised here, and note the end on the way out."""
    note(ledger, f"start {item}")
    try:
        time.sleep(LIMIT)
    finally:
        note(ledger, f"tidied {item}")
    return item

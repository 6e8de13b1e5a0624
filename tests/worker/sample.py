"""Tasks that the worker's tests run."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

from taskq import EncodeError, JobCancelled, current_job, errors
from taskq.cli.line_task import run_remote_line
from taskq.failure import Failure
from taskq.states import Reason
from taskq.tasks import resolve
from tests.ledger import note


def note_and_return(path: str, text: str) -> str:
    """Note the start in the ledger."""
    note(path, text)
    return text


def hold(path: str, gate: str, text: str) -> str:
    """Note the start, and wait until the gate is open."""
    note(path, text)
    current_job().progress(1)
    while not os.path.exists(gate):
        time.sleep(0.002)
    return text


def hold_until_cancelled(path: str) -> None:
    """Run until somebody asks to stop."""
    note(path, "began")
    while not current_job().cancelled:
        time.sleep(0.002)
    raise JobCancelled("as asked")


def speak(gate: str) -> None:
    """Say something in every way there is, then wait."""
    job = current_job()
    print("from print")
    job.log("from log")
    sys.stderr.write("from stderr\n")
    os.write(1, b"from write\n")
    ctypes.CDLL(None).printf(b"from C\n")
    subprocess.run(["/bin/echo", "from a program"], check=True)
    job.progress(3, 9)
    job.meta["page"] = 7
    job.meta["size"] = (640, 480)
    while gate and not os.path.exists(gate):
        time.sleep(0.002)


def speak_and_die() -> None:
    """Print, then take the process down."""
    print("last words")
    os.kill(os.getpid(), signal.SIGKILL)


def flood(size: int) -> None:
    """Print so many bytes."""
    line = b"x" * 65_535 + b"\n"
    for _ in range(size // len(line)):
        os.write(1, line)


def quiet(number: int) -> int:
    """Say nothing."""
    return number


def print_number(number: int) -> None:
    """Print a number."""
    print("number", number)


def facts() -> tuple[str, int, str]:
    """Return what a job knows of itself."""
    job = current_job()
    return job.id, job.attempt, job.queue


def meta_of_attempts() -> list[int]:
    """Note each attempt; fail in the first."""
    job = current_job()
    job.meta["attempts"] = [*job.meta.get("attempts", []), job.attempt]
    if job.attempt == 1:
        raise OSError("once more")
    return list(job.meta["attempts"])


def die(path: str, times: int, text: str = "died") -> str:
    """Kill this process in the first so many runs."""
    note(path, text)
    with open(path, encoding="utf-8") as lines:
        runs = sum(line.rstrip("\n").endswith(f" {text}") for line in lines)
    if runs <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return text


def fail(text: str) -> None:
    """Raise."""
    raise ValueError(text)


def spin(seconds: float) -> None:
    """Hold the interpreter in C."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def work(seconds: float) -> float:
    """Use the CPU for so long."""
    spin(seconds)
    return seconds


def item(number: int) -> int:
    """Be an item of a map."""
    return number * 2


def bad_item(path: str, number: int) -> int:
    """Fail, or kill the process, by the number."""
    note(path, str(number))
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 7:
        raise ValueError("seven")
    return number


def die_then_hold(path: str, gate: str) -> None:
    """Kill this process in the first run; wait at the gate in the second."""
    die(path, 1, "begun")
    hold(path, gate, "held")


def print_and_fail() -> None:
    """Print half a line, and fail."""
    print("before the end", end="")
    raise ValueError("the end")


def flood_and_hold(size: int, gate: str) -> None:
    """Print so many bytes, then wait."""
    flood(size)
    while not os.path.exists(gate):
        time.sleep(0.002)


def print_and_log() -> None:
    """Print, and log."""
    print("printed")
    current_job().log("logged")


def note_too_much() -> str:
    """Note more than a meta may hold."""
    current_job().meta["small"] = 1
    try:
        current_job().meta["large"] = b"x" * 100_000
    except EncodeError as error:
        return str(error)
    return "took it"


def raise_by_name(name: str) -> None:
    """Raise one of taskq's own errors."""
    raise getattr(errors, name)("by the task")


def raise_what_kept_another(name: str) -> None:
    """Raise the error of another job that was never begun, as a client hears of it."""
    try:
        run_remote_line(name, b"1")
    except errors.UnknownTask as error:
        raise Failure.from_exception(error, Reason.UNKNOWN_TASK).to_exception() from None


def resolve_by_name(name: str) -> None:
    """Look for a task that is not there."""
    resolve(name)

# ruff: noqa: INP001 - a folder of files that is copied, no package
"""Tasks of a user's project, found in the working directory."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from taskq import JobCancelled, current_job, task


def square(number: int) -> int:
    """Multiply a number by itself."""
    return number * number


def describe(path: str, size: int = 256) -> dict[str, Any]:
    """Take keywords."""
    return {"path": path, "size": size}


def append(path: str, text: str) -> None:
    """Append a line to a file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    """Give back the arguments."""
    return [list(args), kwargs]


def same(value: Any) -> Any:
    """Give back the argument."""
    return value


def talk(value: Any) -> Any:
    """Print, as tasks do, in Python and beneath it."""
    print("printed")
    os.write(1, b"written\n")
    return value


async def later(value: int) -> int:
    """Be a coroutine."""
    await asyncio.sleep(0)
    return value + 1


def fail(value: Any) -> None:
    """Raise."""
    raise ValueError(f"no {value}")


def fail_odd(number: int) -> int:
    """Raise for odd numbers."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def raw_bytes() -> bytes:
    """Give what JSON cannot carry."""
    return b"x"


@task(retry=2)
def third_time(value: Any) -> int:
    """Succeed at the third attempt."""
    if current_job().attempt < 3:
        raise OSError("not yet")
    return current_job().attempt


def second_time(value: Any) -> int:
    """Succeed at the second attempt."""
    if current_job().attempt < 2:
        raise OSError("not yet")
    return current_job().attempt


def die(value: Any = None) -> None:
    """Kill the process that runs this."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def die_at(value: Any) -> Any:
    """Kill the process at one item."""
    return die() if value == "die" else value


@task(timeout=0.3)
def short_lived(value: Any) -> Any:
    """Hang longer than the task's own timeout at one item."""
    if value == "hang":
        time.sleep(60)
    return value


def hang(seconds: float = 60) -> float:
    """Sleep."""
    time.sleep(seconds)
    return seconds


def hang_at(value: Any) -> Any:
    """Hang at one item."""
    if value == "hang":
        time.sleep(60)
    return value


def cancelled() -> None:
    """End as cancelled."""
    raise JobCancelled("stopped by itself")


def note(folder: str, number: int) -> int:
    """Leave a mark for each run of each item."""
    with open(Path(folder) / str(number), "a") as file:
        file.write("x")
    return number


def note_slowly(folder: str, number: int) -> int:
    """Leave a mark, and take a moment."""
    time.sleep(0.005)
    return note(folder, number)


def tidy(folder: str, number: int) -> None:
    """Sleep, and leave a second mark when that ends."""
    note(folder, number)
    try:
        time.sleep(60)
    finally:
        note(folder, number)


def tidy_or_fail(folder: str | int, number: int = 0) -> None:
    """Do as `tidy`; for a number instead of a folder fail as soon as another call is at it."""
    if isinstance(folder, str):
        tidy(folder, number)
    while not list(Path("marks").iterdir()):
        time.sleep(0.01)
    raise ValueError("failed beside one that runs")


def spin(folder: str, number: int) -> None:
    """Stay in C, where no signal handler of Python runs."""
    note(folder, number)
    sum(range(10**13))


def wait_for_gate(folder: str, number: int) -> int:
    """Leave a mark; item 10 then waits until a file is there."""
    note(folder, number)
    deadline = time.monotonic() + 50
    while number == 10 and not (Path(folder) / "gate").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody opened the gate")
        time.sleep(0.01)
    return number


def where(value: Any = None) -> list[str]:
    """Tell from where this module was imported, and the first place that is searched."""
    return [str(Path(__file__).parent), sys.path[0]]


def watched(gate: str, steps: int = 3) -> str:
    """Say how far it is, then wait until a file is there."""
    job = current_job()
    for number in range(1, steps + 1):
        print(f"step {number}", flush=True)
        job.progress(number, steps + 1)
    job.meta["colour"] = "blue"
    deadline = time.monotonic() + 50
    while not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody opened the gate")
        time.sleep(0.01)
    print("last words", flush=True)
    return "through"


def named(value: Any, *, size: int) -> list[Any]:
    """Take an argument that has to be named."""
    return [value, size]

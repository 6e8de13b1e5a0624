"""An ordinary module of an application, with everything in it that must not be lent to whoever writes messages."""

from __future__ import annotations

import enum
import os
import pathlib
import posix
import subprocess
import tarfile
import time
from contextlib import suppress
from functools import cache, partial, wraps
from os import system
from typing import Any

from taskq import current_job, task
from taskq.errors import SoftTimeout

__all__ = ["Handler", "posix", "system"]


class Tar(tarfile.TarFile):
    """Open archives, by its base."""


class Home(type(pathlib.Path())):  # type: ignore[misc]  # a class that depends on the platform
    """Be a path."""


class Table(dict[str, int]):
    """Be a dict."""


class Process(subprocess.Popen[bytes]):
    """Start programs, by its base."""


class Colour(enum.Enum):
    """Have members."""

    RED = 1


class Base:
    """Have methods that others inherit."""

    @classmethod
    def inherited(cls) -> str:
        """Tell the class."""
        return cls.__name__

    def method(self) -> str:
        """Tell where it runs."""
        return type(self).__name__


class Handler(Base):
    """Have methods of every kind."""

    Meta = type(Base)
    alias = system

    class Inner:
        """Be a class in a class."""

        def deep(self) -> str:
            """Be plain."""
            return "deep"

    def own(self) -> str:
        """Be plain."""
        return "own"

    def _own(self) -> str:
        return "private"

    def __call__(self) -> str:
        """Be what a callable object calls."""
        return "called"

    @staticmethod
    def still() -> str:
        """Use nothing."""
        return "still"

    @classmethod
    def made(cls) -> str:
        """Use the class."""
        return cls.__name__

    @task
    @classmethod
    def meant(cls) -> str:
        """Be a class method that is a task."""
        return cls.__name__


def _own() -> str:
    return "private"


@task
def _meant() -> str:
    return "a task, whatever it is called"


@wraps(os.system)
def wrapped(command: str) -> int:
    """Bear the name of another."""
    return len(command)


@cache
def cached() -> str:
    """Be no plain function."""
    return "cached"


def outlast(times: int) -> str:
    """Go on through so many soft timeouts but one, and then wait for the next."""
    for _ in range(times - 1):
        with suppress(SoftTimeout):
            time.sleep(60)
    time.sleep(60)
    return "never stopped"


def note_all() -> list[Any]:
    """Say of itself what a task can, and fail at first."""
    job = current_job()
    job.progress(job.attempt, 3)
    job.log("one" if job.attempt == 1 else "two")
    if job.attempt == 1:
        job.meta["first"] = 1
        raise ValueError("not yet")
    job.meta["page"] = job.attempt
    return [job.id, job.attempt]


def undecorated(fn: Any) -> Any:
    """Wrap a function without keeping its name."""

    def inner() -> Any:
        return fn()

    return inner


@undecorated
def lent() -> str:
    """Be behind such a wrapper."""
    return "lent"


spread = partial(os.path.join, "a")
alias = Handler.own
bound = Handler().own

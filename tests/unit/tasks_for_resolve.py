"""A module with names of all kinds, for the tests of `taskq.tasks`."""

from __future__ import annotations

import functools
from typing import Any

from taskq import task


def thumbnail(path: str) -> str:
    """Stand for a plain function."""
    return f"small {path}"


@task
def bare(number: int) -> int:
    """Stand for a task without options."""
    return number + 1


@task(timeout=60, retry=3, queue="mail")
def with_options(number: int) -> int:
    """Stand for a task with options."""
    return number + 2


class Shop:
    """Hold methods of every kind."""

    @staticmethod
    @task(priority=1)
    def static_outside(number: int) -> int:
        """Stand for a task below @staticmethod."""
        return number + 3

    @task(priority=2)
    @staticmethod
    def static_inside(number: int) -> int:
        """Stand for a task above @staticmethod."""
        return number + 4

    @classmethod
    @task(priority=3)
    def of_class(cls, number: int) -> tuple[str, int]:
        """Stand for a task below @classmethod."""
        return cls.__name__, number

    def method(self, number: int) -> int:
        """Stand for a method."""
        return number + 5

    def __call__(self) -> None:
        """Stand for a callable object."""


class Branch(Shop):
    """Inherit the methods."""


def decorated(function: Any) -> Any:
    """Wrap a function, as decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@decorated
@task(timeout=5)
def wrapped(number: int) -> int:
    """Stand for a task under another decorator."""
    return number


def make_closure() -> Any:
    """Return a function that only this call knows."""

    def closure() -> None:
        """Stand for a closure."""

    return closure


shop = Shop()
nameless = lambda: None  # noqa: E731 - a lambda is what it stands for
NUMBER = 5

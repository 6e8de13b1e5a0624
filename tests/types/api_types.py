"""The types of `@task`: never run, only read by mypy, which fails where a type is lost.

A line that must not pass has a `type: ignore` with its error code: under `warn_unused_ignores` it would be
reported if it passed after all.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_type

from taskq import task
from taskq.options import JobOptions
from taskq.retry import Retry, RetryLater
from taskq.tasks import options_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@task
def bare(path: str, size: int = 256) -> bytes:
    """Stand for a task without options."""
    return path.encode() * size


@task(timeout=60, soft_timeout=50.5, retry=Retry(5, on=(OSError,)), queue="mail", priority=1, max_crashes=2)
def with_options(path: str, *, size: int) -> dict[str, int]:
    """Stand for a task with options."""
    return {path: size}


@task(retry=Retry(5, on={OSError: 3, TimeoutError: 5, "shop.Sold": 0}))
def with_limits(path: str) -> str:
    """Stand for a task with limits by classes, which asks to be run again."""
    raise RetryLater("10m", counted=False) from FileNotFoundError(path)


@task(retry=3, delay=5.0, at=datetime(2030, 1, 31, tzinfo=UTC), key="k")
async def waiting(*numbers: float) -> float:
    """Stand for an async task."""
    return sum(numbers)


class Shop:
    """Hold tasks."""

    @staticmethod
    @task
    def static(number: int) -> int:
        """Stand for a static task."""
        return number

    @classmethod
    @task(timeout=5)
    def of_class(cls, number: int) -> str:
        """Stand for a task of the class."""
        return f"{cls}{number}"


def check_calls() -> None:
    """A task is called with its own parameters and returns its own type."""
    assert_type(bare("a.jpg"), bytes)
    assert_type(bare("a.jpg", size=3), bytes)
    assert_type(with_options("a.jpg", size=3), dict[str, int])
    assert_type(Shop.static(3), int)
    assert_type(Shop.of_class(3), str)
    good: Callable[[str, int], bytes] = bare
    later: Awaitable[float] = waiting(1.0, 2.0)
    print(good, later)


def check_wrong_calls() -> None:
    """Wrong arguments are found through the decorator."""
    bare(5)  # type: ignore[arg-type]
    bare("a.jpg", width=3)  # type: ignore[call-arg]
    with_options("a.jpg")  # type: ignore[call-arg]
    with_options("a.jpg", 3)  # type: ignore[call-arg]
    Shop.static("3")  # type: ignore[arg-type]


def check_names() -> None:
    """What a function has besides its parameters is kept too."""
    assert_type(bare.__name__, str)
    assert_type(options_of(bare), JobOptions)


def check_wrong_options() -> None:
    """Wrong options are found in the editor, before the program runs."""
    task(timeout=[60])  # type: ignore[call-overload]
    task(time_out=60)  # type: ignore[call-overload]
    task(60)  # type: ignore[call-overload]
    JobOptions().merged(retry="5")  # type: ignore[arg-type]

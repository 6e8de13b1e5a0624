"""Retries: the policy that users write, and the decisions that every executor shares.

Pure functions: they read no clock and no global random source, and keep nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from taskq.durations import to_seconds
from taskq.errors import ConfigError, TaskqError
from taskq.failure import Again
from taskq.frozen import Frozen
from taskq.names import qualified_name
from taskq.states import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.durations import Duration
    from taskq.failure import Failure

__all__ = ["ASKS", "Retry", "RetryLater", "after_crash", "after_error"]

#: Failures that the `retry` policy rules. Crashes are counted apart; what was lost, cannot be decoded or
#: has no task here would fail the same way again.
RETRIED = frozenset({Reason.ERROR, Reason.TIMEOUT})

#: What `Retry.on` takes: exception classes or their names, or a limit for each.
Errors: TypeAlias = "type[BaseException] | str | tuple[type[BaseException] | str, ...] | Mapping[Any, int]"

#: What stands in every description of a `RetryLater`, so that others need not be read.
ASKS: Final = "taskq.retry.RetryLater"

#: Seconds; a bound (317 years) that keeps every product below within a float.
MAX_SECONDS = 1e10


#: Most retries; more is a slip of the pen, and a job that never ends.
MAX_RETRIES = 1_000_000


class Retry(Frozen):
    """The policy to run a job again after an error, up to `max_retries` times (so at most `max_retries + 1` attempts).

    The wait before the n-th retry is `delay * backoff ** (n - 1)` seconds, at most `max_delay`. With
    `jitter` it is drawn evenly between 0 and that (full jitter), so that jobs which failed together do
    not come back together. `delay` and `max_delay` are seconds, texts as "10m", or a `timedelta`. `on` lists the
    exception classes to retry, or their names ("module.Qualname").

    `on` may also be a mapping of these to limits, as `{OSError: 3, TimeoutError: 5, ValueError: 0}`. A limit is one on
    the total: an error of that class is retried while the job has had fewer retries than that, whatever these were
    for. Of several classes that fit an error the closest one counts. It is kept as `on`, the classes, and `limits`, a
    number for each; without a mapping `limits` is empty, and `max_retries` holds for all.

    Raises:
        ConfigError: a number is negative or too large, `backoff` is below 1, `on` holds no exceptions, or a limit is
            above `max_retries`.
    """

    max_retries: int
    delay: float
    backoff: float
    max_delay: float
    jitter: bool
    on: tuple[type[BaseException] | str, ...]
    limits: tuple[int, ...]

    def __init__(
        self,
        max_retries: int,
        *,
        delay: Duration = 1.0,
        backoff: float = 2.0,
        max_delay: Duration = 300.0,
        jitter: bool = True,
        on: Errors = (Exception,),
        limits: tuple[int, ...] = (),
    ) -> None:
        if isinstance(on, Mapping):
            limits = tuple(on.values())
            on = tuple(on)
        super().__init__(
            max_retries=max_retries,
            delay=delay,
            backoff=backoff,
            max_delay=max_delay,
            jitter=jitter,
            on=on,
            limits=limits,
        )

    def check(self) -> None:
        """Refuse what makes no sense; take one class for a tuple of it."""
        if type(self.max_retries) is not int or not 0 <= self.max_retries <= MAX_RETRIES:
            raise ConfigError(f"Retry max_retries={self.max_retries!r}: give a whole number from 0 to {MAX_RETRIES:,}")
        for name in ("delay", "max_delay"):
            self.__dict__[name] = to_seconds(f"Retry {name}", getattr(self, name))
            _check_number(f"Retry {name}", getattr(self, name), at_least=0)
        _check_number("Retry backoff", self.backoff, at_least=1)
        self.__dict__["on"] = _checked_classes(self.on)
        if self.limits and len(self.limits) != len(self.on):
            raise ConfigError(f"Retry limits={self.limits!r}: give one for each of on={self.on!r}")
        for entry, limit in zip(self.on, self.limits, strict=False):
            if type(limit) is not int or not 0 <= limit <= self.max_retries:
                most = f"from 0 to max_retries={self.max_retries}"
                raise ConfigError(f"Retry on: the limit {limit!r} of {_name_of(entry)} is no whole number {most}")

    def limit_for(self, failure: Failure) -> int:
        """Return how many retries there may be in all for one more after such a failure; 0: it is not retried."""
        if not self.limits:
            return self.max_retries if failure.matches(self.on) else 0
        limits = dict(zip(map(_name_of, self.on), self.limits, strict=True))
        return next((limits[name] for name in (failure.type, *failure.mro) if name in limits), 0)

    def delay_before(self, retry: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait before the retry of this number (the first is 1).

        `random` returns a float in [0, 1); it is not called without `jitter`.
        """
        ceiling = min(self.max_delay, self.delay * _power(self.backoff, retry - 1))
        return ceiling * random() if self.jitter else ceiling


class RetryLater(TaskqError):
    """Ask, raised by a job, to run it again after `delay`: seconds, a text as "10m", or a `timedelta`.

    `counted`: it uses up one of the job's retries, whatever `Retry.on` says; with none left, or without a `retry`
    policy, the job fails, and this is its error. Not `counted`: it uses up none, and may be raised any number of times.
    Outside a job, and where it comes from another job by its `result()`, it is an error like any other.

    Raises:
        ConfigError: `delay` is no length of time, or out of bounds.
    """

    def __init__(self, delay: Duration, counted: bool = True) -> None:
        seconds = to_seconds("RetryLater delay", delay)
        _check_number("RetryLater delay", seconds, at_least=0)
        super().__init__(float(seconds), bool(counted))
        self.__again__ = float(seconds), bool(counted)

    @property
    def delay(self) -> float:
        """The seconds to wait."""
        return float(self.args[0])

    @property
    def counted(self) -> bool:
        """Whether it uses up one of the job's retries."""
        return bool(self.args[1])

    def __str__(self) -> str:
        condition = "if it has a retry left" if self.counted else "whatever retries it has left"
        return f"run this job again in {self.delay:g} s, {condition}; outside a job nothing is run again"


def after_error(policy: Retry | None, retries_done: int, failure: Failure, random: Callable[[], float]) -> Again | None:
    """Return how the job is run again, or None when this failure is final. `retries_done`: those that were counted."""
    if failure.again is not None:
        none_left = policy is None or retries_done >= policy.max_retries
        return None if failure.again.counted and none_left else failure.again
    if policy is None or failure.reason not in RETRIED or retries_done >= policy.limit_for(failure):
        return None
    return Again(policy.delay_before(retries_done + 1, random))


def after_crash(crashes: int, max_crashes: int) -> bool:
    """Return whether a job whose process has died `crashes` times is run again."""
    return crashes < max_crashes


def _power(backoff: float, exponent: int) -> float:
    """Return `backoff ** exponent`, or the largest float where that would overflow."""
    try:
        return float(backoff) ** exponent
    except OverflowError:
        return sys.float_info.max


def _check_number(name: str, value: object, *, at_least: float) -> None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1
    if not at_least <= number <= MAX_SECONDS:
        raise ConfigError(f"{name}={value!r}: give a number from {at_least} to {MAX_SECONDS:g}")


def _name_of(entry: type[BaseException] | str) -> str:
    return entry if isinstance(entry, str) else qualified_name(entry)


def _checked_classes(on: object) -> tuple[type[BaseException] | str, ...]:
    classes = on if isinstance(on, (tuple, list, set, frozenset)) else (on,)
    for entry in classes:
        if not isinstance(entry, str) and not (isinstance(entry, type) and issubclass(entry, BaseException)):
            raise ConfigError(f"Retry on={on!r}: {entry!r} is not an exception class nor the name of one")
    if not classes:
        raise ConfigError("Retry on=() would never retry: name exception classes, or use retry=None")
    return tuple(classes)

"""What can be said of a job besides its task and arguments: its options, and its states.

The states themselves stand in `states.py`, below `retry.py` and `result.py`, which need them too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from taskq.errors import ConfigError
from taskq.retry import Retry
from taskq.states import TERMINAL, TRANSITIONS, Reason, State
from taskq.suggest import did_you_mean

if TYPE_CHECKING:
    from typing import Self, Unpack

__all__ = ["TERMINAL", "TRANSITIONS", "JobOptionFields", "JobOptions", "Reason", "State"]

#: Seconds; ten years. A longer wait is a slip of the pen (milliseconds, a timestamp), and clocks overflow.
MAX_SECONDS = 315_360_000.0

#: Highest and lowest priority; fits 32 bits in every store.
MAX_PRIORITY = 2**31 - 1

#: Characters of a key or of a queue's name; both become parts of keys in the stores.
MAX_KEY = 512
MAX_QUEUE = 128


class JobOptionFields(TypedDict, total=False):
    """Type the keywords of `@task(...)`, `TaskQueue.options(...)` and `JobOptions.merged(...)`."""

    queue: str
    timeout: float | None
    soft_timeout: float | None
    retry: Retry | int | None
    max_crashes: int
    priority: int
    delay: float | None
    at: datetime | None
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Hold the options of a job; every one has a default.

    - `queue`: the line it waits in.
    - `timeout`: seconds of running after which its process is killed; `soft_timeout`: seconds after
      which `SoftTimeout` is raised inside it.
    - `retry`: a `Retry`, or a number of retries, or None; `max_crashes`: deaths of its process until it
      is failed.
    - `priority`: higher runs first.
    - `delay`: seconds until it may start, or `at`: the instant (aware), not both.
    - `key`: jobs with the same key are one job as long as it has not ended.

    Raises:
        ConfigError: an option has a value that makes no sense.
    """

    queue: str = "default"
    timeout: float | None = None
    soft_timeout: float | None = None
    retry: Retry | None = None
    max_crashes: int = 3
    priority: int = 0
    delay: float | None = None
    at: datetime | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        _check_name("queue", self.queue, MAX_QUEUE)
        _check_seconds("timeout", self.timeout, zero=False)
        _check_seconds("soft_timeout", self.soft_timeout, zero=False)
        _check_int("max_crashes", self.max_crashes, 1, MAX_PRIORITY)
        _check_int("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        _check_seconds("delay", self.delay, zero=True)
        if self.key is not None:
            _check_key(self.key)
        object.__setattr__(self, "retry", _checked_retry(self.retry))
        self._check_times()

    def _check_times(self) -> None:
        at: object = self.at
        if at is not None and (not isinstance(at, datetime) or at.utcoffset() is None):
            raise ConfigError(f"at={at!r}: give an aware datetime, as datetime(2030, 1, 31, tzinfo=UTC)")
        if at is not None and self.delay is not None:
            raise ConfigError(f"delay={self.delay!r} and at={at!r}: give one of them")
        soft, hard = self.soft_timeout, self.timeout
        if soft is not None and hard is not None and soft >= hard:
            raise ConfigError(
                f"soft_timeout={soft!r} would never come before timeout={hard!r}: "
                "give a shorter soft_timeout, or soft_timeout=None"
            )

    def merged(self, **changes: Unpack[JobOptionFields]) -> Self:
        """Return these options with some changed; a new `delay` takes the place of an `at`, and the reverse.

        Raises:
            ConfigError: there is no option of such a name, or a value makes no sense.
        """
        if not changes:
            return self
        for name in changes:
            if name not in FIELD_NAMES:
                raise ConfigError(_unknown(name))
        fresh: dict[str, Any] = dict(changes)
        if fresh.get("delay") is not None:
            fresh.setdefault("at", None)
        if fresh.get("at") is not None:
            fresh.setdefault("delay", None)
        return replace(self, **fresh)


#: The names of all options, in their order.
FIELD_NAMES = tuple(field.name for field in fields(JobOptions))


def _unknown(name: str) -> str:
    hint = did_you_mean(name, FIELD_NAMES)
    return f"there is no job option {name!r}{hint or ':'} the options are {', '.join(FIELD_NAMES)}"


def _checked_retry(retry: object) -> Retry | None:
    if retry is None or isinstance(retry, Retry):
        return retry
    if type(retry) is int:
        return Retry(retry)
    raise ConfigError(f"retry={retry!r}: give a number of retries, a Retry(...), or None")


def _check_seconds(name: str, value: object, *, zero: bool) -> None:
    if value is None:
        return
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1
    if not 0 <= number <= MAX_SECONDS or (number == 0 and not zero):
        lowest = "from 0" if zero else "above 0, up"
        raise ConfigError(f"{name}={value!r}: give seconds, {lowest} to {MAX_SECONDS:.0f}, or None")


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name}={value!r}: give a whole number from {low} to {high}")


def _check_name(name: str, value: object, limit: int) -> None:
    """Refuse what could not be told apart in a list of queues: a comma or a space parts them."""
    text = value if isinstance(value, str) else ""
    if not 0 < len(text) <= limit or not text.isprintable() or "," in text or " " in text:
        raise ConfigError(f"{name}={value!r}: give 1 to {limit} printable characters, no commas or spaces")


def _check_key(value: object) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_KEY or not value.isprintable():
        raise ConfigError(f"key={value!r}: give 1 to {MAX_KEY} printable characters, or None")

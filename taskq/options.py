"""The options of a job: what can be said of it besides its task and arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from taskq.durations import to_seconds
from taskq.errors import ConfigError
from taskq.frozen import Frozen
from taskq.names import check_name, did_you_mean
from taskq.retry import Retry

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self, TypedDict, Unpack

    from taskq.durations import Duration

    class JobOptionFields(TypedDict, total=False):
        """The types of the keywords of `@task(...)`, `TaskQueue.options(...)` and `JobOptions.merged(...)`.

        Only for type checkers: at run time it would take 0.3 ms of every start.
        """

        queue: str
        timeout: Duration | None
        soft_timeout: Duration | None
        retry: Retry | int | None
        max_crashes: int
        priority: int
        delay: Duration | None
        at: datetime | None
        expires: Duration | None
        key: str | None
        job_id: str | None
        if_exists: Literal["return", "reject"]
        result_ttl: Duration | None
        label: str | None


__all__ = ["JobOptions"]

#: Seconds; ten years. A longer wait is a slip of the pen (milliseconds, a timestamp), and clocks overflow.
MAX_SECONDS = 315_360_000.0

#: Highest and lowest priority; fits 32 bits in every store.
MAX_PRIORITY = 2**31 - 1

#: Characters of a label.
MAX_LABEL = 200

#: What an id may be: it becomes a part of keys, file names and command lines.
JOB_ID = r"[A-Za-z0-9_-]{1,128}"

#: What a taken `key` or `job_id` may do.
IF_EXISTS = ("return", "reject")


class JobOptions(Frozen):
    """The options of a job; every one has a default.

    A length of time is float seconds, a text as "90s", "10m" or "1h30m", or a `timedelta`; it is kept as seconds.

    - `queue`: the line it waits in.
    - `timeout`: seconds of running after which its process is killed; `soft_timeout`: seconds after
      which `SoftTimeout` is raised inside it.
    - `retry`: a `Retry`, or a number of retries, or None; `max_crashes`: deaths of its process until it
      is failed.
    - `priority`: higher runs first.
    - `delay`: seconds until it may start, or `at`: the instant (aware), not both.
    - `expires`: seconds after its submit within which it must have started, else it fails as expired.
    - `key`: jobs with the same key are one job as long as it has not ended.
    - `job_id`: the id it gets, instead of a new one. Submitted again it is the same job, ended or not.
    - `if_exists`: what a `key` or `job_id` that is taken does: "return" gives a handle to the job that
      has it, "reject" raises `JobExists`.
    - `result_ttl`: seconds for which the ended job is kept. None: a failed one 7 days, others 1 day.
    - `label`: how lists show it. None: its call; on Redis, where others read it, with the types of its arguments.

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
    expires: float | None = None
    key: str | None = None
    job_id: str | None = None
    if_exists: Literal["return", "reject"] = "return"
    result_ttl: float | None = None
    label: str | None = None

    def check(self) -> None:
        """Refuse what makes no sense; take a number of retries for a policy."""
        check_name("queue", self.queue)
        self._check_seconds("timeout", zero=False)
        self._check_seconds("soft_timeout", zero=False)
        _check_int("max_crashes", self.max_crashes, 1, MAX_PRIORITY)
        _check_int("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        self._check_seconds("delay", zero=True)
        self._check_seconds("expires", zero=False)
        self._check_seconds("result_ttl", zero=True)
        if self.key is not None:
            check_name("key", self.key)
        if self.job_id is not None:
            _check_job_id(self.job_id)
        if self.label is not None:
            _check_label(self.label)
        if self.if_exists not in IF_EXISTS:
            raise ConfigError(f'if_exists={self.if_exists!r}: write "return" or "reject"')
        self.__dict__["retry"] = _checked_retry(self.retry)
        self._check_times()

    def _check_seconds(self, name: str, *, zero: bool) -> None:
        """Refuse what is no length of time; take a text or a timedelta for its seconds."""
        said = getattr(self, name)
        if said is None:
            return
        value = self.__dict__[name] = to_seconds(name, said)
        number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1
        if not 0 <= number <= MAX_SECONDS or (number == 0 and not zero):
            lowest = "from 0" if zero else "above 0, up"
            how = f'give seconds, {lowest} to {MAX_SECONDS:.0f}, a text as "10m" or "1h30m", a timedelta, or None'
            raise ConfigError(f"{name}={said!r}: {how}")

    def _check_times(self) -> None:
        if self.at is not None and not _is_instant(at := self.at):
            raise ConfigError(f"at={at!r}: give an aware datetime, as datetime(2030, 1, 31, tzinfo=UTC)")
        if self.at is not None and self.delay is not None:
            raise ConfigError(f"delay={self.delay!r} and at={self.at!r}: give one of them")
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
        return self.changed(**fresh)


#: The names of all options, in their order.
FIELD_NAMES = JobOptions.field_names()


def _is_instant(value: object) -> bool:
    from datetime import datetime  # noqa: PLC0415  # 2 ms of every start, for few jobs

    return isinstance(value, datetime) and value.utcoffset() is not None


def _unknown(name: str) -> str:
    hint = did_you_mean(name, FIELD_NAMES)
    return f"there is no job option {name!r}{hint or ':'} the options are {', '.join(FIELD_NAMES)}"


def _checked_retry(retry: object) -> Retry | None:
    if retry is None or isinstance(retry, Retry):
        return retry
    if type(retry) is int:
        return Retry(retry)
    raise ConfigError(f"retry={retry!r}: give a number of retries, a Retry(...), or None")


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name}={value!r}: give a whole number from {low} to {high}")


def _check_label(value: object) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_LABEL or not value.isprintable():
        raise ConfigError(f"label={value!r}: give 1 to {MAX_LABEL} printable characters, or None")


def _check_job_id(value: object) -> None:
    if not isinstance(value, str) or re.fullmatch(JOB_ID, value) is None:
        raise ConfigError(f"job_id={value!r}: give 1 to 128 letters, digits, - or _, or None")

"""The flags of `taskq submit` that are options of the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from taskq.cli.instants import parse_at
from taskq.config import parse_duration
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.options import JobOptionFields

__all__ = ["job_flags", "read_job_flags"]

F = TypeVar("F", bound="Callable[..., Any]")

FLAGS = (
    click.option("--queue", metavar="NAME", help="The queue; default: that of the task, else default."),
    click.option("--priority", metavar="N", type=int, help="Higher runs first; default: 0."),
    click.option("--delay", metavar="TIME", help="Start it so much later: 90, 10m, 1h."),
    click.option("--at", metavar="WHEN", help="Start it then: 2026-11-30T08:00 (local), or 08:00."),
    click.option("--expires", metavar="TIME", help="Fail it if it has not started by then."),
    click.option("--key", metavar="KEY", help="Be the same job as one with this key that has not ended."),
    click.option("--job-id", metavar="ID", help="Its id; submitted again it is the same job."),
    click.option(
        "--if-exists", type=click.Choice(["return", "reject"]), help="What a taken key or id does; default: return."
    ),
    click.option("--result-ttl", metavar="TIME", help="Keep it so long after its end; default: a day, failed 7."),
    click.option("--label", metavar="TEXT", help="How lists show it; default: its call, without secrets."),
)


def job_flags(command: F) -> F:
    """Add the flags to a command, in their order."""
    for flag in reversed(FLAGS):
        command = flag(command)
    return command


def read_job_flags(flags: dict[str, Any]) -> JobOptionFields:
    """Take these flags out of a command's flags; return them as options of a job.

    Raises:
        ConfigError: a value cannot be read; the message names the flag.
    """
    said = {name: flags.pop(name) for name in READERS}
    changes = {name: _read(name, value) for name, value in said.items() if value is not None}
    return cast("JobOptionFields", changes)


def _read(name: str, value: object) -> object:
    try:
        return READERS[name](value)
    except ConfigError as exc:
        flag = f"--{name.replace('_', '-')}"
        raise ConfigError(str(exc) if str(exc).startswith(flag) else f"{flag}: {exc}") from None


def _length(value: object) -> float:
    """Return a length of time that may be none at all."""
    return 0.0 if str(value).strip() in ("0", "0s") else parse_duration(value)


def _as_it_is(value: object) -> object:
    return value


READERS: dict[str, Callable[[Any], object]] = {
    "queue": _as_it_is,
    "priority": _as_it_is,
    "delay": _length,
    "at": parse_at,
    "expires": parse_duration,
    "key": _as_it_is,
    "job_id": _as_it_is,
    "if_exists": _as_it_is,
    "result_ttl": _length,
    "label": _as_it_is,
}

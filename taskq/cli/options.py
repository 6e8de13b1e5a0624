"""Flags that commands share, and the options and settings that they make.

    pool_flags       processes, timeouts, retries, URL, log: settings, as in the environment and in settings files
    job_flags        options of the job of `taskq submit`
    command_flags    --cwd and --env of a command behind `--`

A flag that was not given is None, so that environment and settings files have their say (`config.load`). Where a
command runs, and with which variables:

    local://        the folder and the environment of the user, and --env
    a queue file    the folder of the user, the environment of the worker, and --env
    Redis           folder and environment of the worker, which may be another machine; --cwd, and --env
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from taskq import config, log
from taskq.cli.instants import parse_at
from taskq.cli.stores import url_file
from taskq.durations import parse_duration
from taskq.errors import ConfigError
from taskq.options import JobOptions
from taskq.tasks import options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskq.config import Settings
    from taskq.options import JobOptionFields

__all__ = [
    "CommandAfterDashes",
    "Request",
    "command_flags",
    "dashed",
    "job_flags",
    "job_options",
    "pool_flags",
    "read_command_flags",
    "read_job_flags",
    "read_settings",
]

F = TypeVar("F", bound="Callable[..., Any]")

#: Where the words after `--` are kept in click's context.
DASHED = "taskq.dashed"

POOL_FLAGS = (
    click.option("--processes", "-j", metavar="N", help="Child processes; default: one per CPU."),
    click.option("--timeout", metavar="TIME", help="Kill a job that runs longer: 90, 1.5s, 10m, 1h."),
    click.option("--soft-timeout", metavar="TIME", help="Raise SoftTimeout in a job that runs longer."),
    click.option("--retry", "--retries", "retries", metavar="N", help="Run a job that failed up to N times again."),
    click.option("--start-method", type=click.Choice(config.START_METHODS), help="How processes start."),
    click.option("--url", metavar="URL", help="Where jobs live; default: see taskq config show."),
    click.option("--log-format", type=click.Choice(["console", "json"]), help="Form of messages on stderr."),
    click.option("--log-level", type=click.Choice(list(log.LEVELS)), help="Least level of log lines."),
    click.option("--tracebacks", is_flag=True, help="Show where in the task an error was raised."),
    click.option("--json", "as_json", is_flag=True, help="Outcome and errors as JSON, for programs."),
)

#: The flags above that are no settings.
NOT_SETTINGS = frozenset({"tracebacks", "as_json"})


class CommandAfterDashes(click.Command):
    """Keep what stands behind the first `--` as it is: a command, or words that begin with a dash."""

    #: What stands behind the command's name in its usage line.
    usage = "[OPTIONS] (MODULE:FUNCTION | -- COMMAND...)"

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the words of the usage line."""
        return [self.usage]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Cut the line at the dashes, and parse what is before them."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta[DASHED] = tuple(args[cut + 1 :])
            args = args[:cut]
        return super().parse_args(ctx, args)


def dashed(ctx: click.Context) -> tuple[str, ...] | None:
    """Return the words after `--`; None when there were no dashes."""
    words: tuple[str, ...] | None = ctx.meta.get(DASHED)
    return words


def pool_flags(command: F) -> F:
    """Add the shared flags to a command, in their order."""
    for flag in reversed((*POOL_FLAGS, url_file)):
        command = flag(command)
    return command


def read_settings(flags: dict[str, Any]) -> Settings:
    """Return the settings that flags, environment and files make, and set up the log by them.

    Raises:
        ConfigError: a bad value; the message names where it stands.
    """
    settings = config.load({name: value for name, value in flags.items() if name not in NOT_SETTINGS})
    log.configure(settings.log_format, settings.log_level)
    return settings


def job_options(
    settings: Settings, task: Callable[..., Any] | None, said_too: JobOptionFields | None = None
) -> JobOptionFields:
    """Return the options of a task's jobs: those of its `@task(...)`, over them the settings, and what else is said.

    Raises:
        ConfigError: they do not go together, as a soft timeout beyond the timeout.
    """
    said = {
        "timeout": settings.timeout,
        "soft_timeout": settings.soft_timeout,
        "retry": settings.retries,
    }
    changes: Any = {name: value for name, value in said.items() if value is not None}
    options = (JobOptions() if task is None else options_of(task)).merged(**changes).merged(**(said_too or {}))
    result: Any = {name: getattr(options, name) for name in options.field_names()}
    return result  # type: ignore[no-any-return]


JOB_FLAGS = (
    click.option("--queue", metavar="NAME", help="The queue; default: that of the task, else default."),
    click.option("--priority", metavar="N", type=int, help="Higher runs first; default: 0."),
    click.option("--delay", metavar="TIME", help="Start it this much later: 90, 10m, 1h."),
    click.option("--at", metavar="WHEN", help="Start it then: 2026-11-30T08:00 (local), or 08:00."),
    click.option("--expires", metavar="TIME", help="Fail it if it has not started by then."),
    click.option("--key", metavar="KEY", help="Reuse the unfinished job with this key, if there is one."),
    click.option("--job-id", metavar="ID", help="Its id; submitting it again gives the same job."),
    click.option(
        "--if-exists", type=click.Choice(["return", "reject"]), help="What a taken key or id does; default: return."
    ),
    click.option("--max-crashes", type=int, metavar="N", help="Deaths of its process until it fails; default: 3."),
    click.option("--result-ttl", metavar="TIME", help="Keep it this long after its end; default: 1d, failed 7d."),
    click.option("--label", metavar="TEXT", help="How lists show it; default: its call, without secrets."),
)


def job_flags(command: F) -> F:
    """Add the flags to a command, in their order."""
    for flag in reversed(JOB_FLAGS):
        command = flag(command)
    return command


def read_job_flags(flags: dict[str, Any]) -> JobOptionFields:
    """Take these flags out of a command's flags; return them as options of a job.

    Raises:
        ConfigError: a value cannot be read; the message names the flag.
    """
    said = {name: flags.pop(name) for name in JOB_READERS}
    changes = {name: _read_job_flag(name, value) for name, value in said.items() if value is not None}
    return cast("JobOptionFields", changes)


def _read_job_flag(name: str, value: object) -> object:
    try:
        return JOB_READERS[name](value)
    except ConfigError as exc:
        flag = f"--{name.replace('_', '-')}"
        raise ConfigError(str(exc) if str(exc).startswith(flag) else f"{flag}: {exc}") from None


def _length(value: object) -> float:
    """Return a length of time that may be none at all."""
    return 0.0 if str(value).strip() in ("0", "0s") else parse_duration(value)


def _as_it_is(value: object) -> object:
    return value


JOB_READERS: dict[str, Callable[[Any], object]] = {
    "queue": _as_it_is,
    "priority": _as_it_is,
    "delay": _length,
    "at": parse_at,
    "expires": parse_duration,
    "key": _as_it_is,
    "job_id": _as_it_is,
    "if_exists": _as_it_is,
    "max_crashes": _as_it_is,
    "result_ttl": _length,
    "label": _as_it_is,
}

COMMAND_FLAGS = (
    click.option("--cwd", metavar="FOLDER", help="Run the command there; default: here, on Redis where the worker is."),
    click.option(
        "--env", metavar="NAME[=VALUE]", multiple=True, help="Set a variable for the command; without =, copy it."
    ),
)

#: Stores whose workers are on this machine.
HERE = ("local", "sqlite")


def command_flags(command: F) -> F:
    """Add the flags to a command, in their order."""
    for flag in reversed(COMMAND_FLAGS):
        command = flag(command)
    return command


def read_command_flags(flags: dict[str, Any], url: str, *, is_command: bool) -> dict[str, Any]:
    """Take these flags out of a command's flags; return them as keywords of `run_command`.

    Raises:
        ConfigError: the folder or a variable is not there.
        click.UsageError: it is no command that is run.
    """
    cwd, env = flags.pop("cwd"), flags.pop("env")
    if not is_command:
        if cwd is not None or env:
            raise click.UsageError("--cwd and --env are for a command after --: a task runs where its worker does")
        return {}
    scheme = url.partition("://")[0].lower()
    folder = _folder(cwd, scheme)
    variables = _variables(env)
    return {**({"cwd": folder} if folder else {}), **({"env": variables} if variables else {})}


def _folder(said: str | None, scheme: str) -> str | None:
    if said is None:
        return _working_directory() if scheme == "sqlite" else None
    folder = os.path.abspath(said)  # noqa: PTH100 - pathlib would follow symbolic links
    if scheme in HERE and not os.path.isdir(folder):  # noqa: PTH112 - see above
        raise ConfigError(f"--cwd {said}: there is no such folder")
    return folder


def _working_directory() -> str | None:
    """Return the working directory; None where it was deleted under our feet."""
    try:
        return os.getcwd()  # noqa: PTH109 - it is sent as a text
    except FileNotFoundError:
        return None


def _variables(words: Iterable[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not name or "\0" in word:
            raise ConfigError(f"--env {word!r}: write NAME=VALUE, or NAME for the value that it has here")
        if not mark and name not in os.environ:
            raise ConfigError(f"--env {name}: there is no such variable here: write {name}=VALUE")
        found[name] = value if mark else os.environ[name]
    return found


# --- what `taskq submit` is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A task with its arguments, or a command, and what to do with it."""

    target: str | None = None
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    args_json: str | None = None
    jsonl: str | None = None
    wait: bool = False
    raw: bool = False
    unchecked: bool = False
    tracebacks: bool = False
    as_json: bool = False
    verbose: bool = False
    command_options: dict[str, Any] = field(default_factory=dict)
    options: JobOptionFields

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.target if self.target is not None else self.command[0]

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            click.UsageError: says what to leave out.
        """
        if self.command and (self.args_json is not None or self.raw or self.unchecked):
            raise click.UsageError("--args-json, --raw and --unchecked are for tasks, not for a command")
        if self.jsonl is None:
            return
        if self.wait:
            raise click.UsageError("--jsonl prints ids and does not wait: taskq map gives a result for each line")
        if self.words or self.args_json is not None:
            raise click.UsageError("the arguments come from the lines of --jsonl: leave out those beside it")
        if self.options.get("job_id") is not None or self.options.get("key") is not None:
            raise click.UsageError("all lines of --jsonl would be one job: leave out --job-id and --key")

"""The flags that the commands share, and what becomes of them.

A flag that was not given is None, so that environment and settings files have their say (`config.load`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskq import config, log
from taskq.cli.url_file import url_file
from taskq.options import JobOptions
from taskq.tasks import options_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.config import Settings
    from taskq.options import JobOptionFields

__all__ = ["CommandAfterDashes", "dashed", "job_options", "pool_flags", "read_settings"]

F = TypeVar("F", bound="Callable[..., Any]")

#: Where the words after `--` are kept in click's context.
DASHED = "taskq.dashed"

FLAGS = (
    click.option("--processes", "-j", metavar="N", help="Child processes; default: one per CPU."),
    click.option("--timeout", metavar="TIME", help="Kill a job that runs longer: 90, 1.5s, 10m, 1h."),
    click.option("--soft-timeout", metavar="TIME", help="Raise SoftTimeout in a job that runs longer."),
    click.option("--retries", metavar="N", help="Run a job that failed up to N times again."),
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
    for flag in reversed((*FLAGS, url_file)):
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

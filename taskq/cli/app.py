"""The group of commands, and the way out: every error becomes one sentence on stderr and an exit code.

A command is imported when it is asked for: `CATALOG` says where each stands, so that `taskq --help` loads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import click

from taskq import __version__
from taskq.cli.exits import Exit, code_for, sentence
from taskq.cli.streams import (
    CannotWrite,
    OutputClosed,
    drop_stdout,
    finish_stdout,
    guard_streams,
    hold_standard_descriptors,
)
from taskq.cli.tell import emit_line, say, say_document
from taskq.errors import TaskqError
from taskq.names import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CATALOG", "Entry", "cli", "completion", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command: its "module:name", and its line in `taskq --help`; hidden ones are aliases."""

    place: str
    line: str = ""
    hidden: bool = False


#: In the order of use.
CATALOG = {
    "submit": Entry(place="taskq.cli.submit:submit", line="Submit a task or a command as a job."),
    "map": Entry(place="taskq.cli.map:map_command", line="Run a task or command per line."),
    "worker": Entry(place="taskq.cli.worker:worker", line="Run the jobs of a queue, as a daemon."),
    "status": Entry(place="taskq.cli.show:status", line="Show queues and jobs."),
    "top": Entry(place="taskq.cli.top.app:top", line="Watch queues, jobs and workers live."),
    "result": Entry(place="taskq.cli.jobs:result", line="Print a job's result."),
    "wait": Entry(place="taskq.cli.jobs:wait", line="Wait until jobs have ended."),
    "logs": Entry(place="taskq.cli.jobs:logs", line="Print what a job has written."),
    "cancel": Entry(place="taskq.cli.jobs:cancel", line="Cancel jobs."),
    "retry": Entry(place="taskq.cli.jobs:retry", line="Run failed jobs again."),
    "queues": Entry(place="taskq.cli.show:queues", line="Show the queues."),
    "workers": Entry(place="taskq.cli.show:workers", line="Show the workers."),
    "pause": Entry(place="taskq.cli.jobs:pause", line="Start no more jobs of a queue."),
    "resume": Entry(place="taskq.cli.jobs:resume", line="Start the jobs of a paused queue again."),
    "purge": Entry(place="taskq.cli.jobs:purge", line="Delete jobs."),
    "transfer": Entry(place="taskq.cli.transfer:transfer", line="Move waiting jobs to another store."),
    "doctor": Entry(place="taskq.cli.doctor:doctor", line="Look for problems and suggest cures."),
    "config": Entry(place="taskq.cli.show:config", line="Show the settings and where they come from."),
    "completion": Entry(place="taskq.cli.app:completion", line="Print a shell's completion script."),
    "enqueue": Entry(place="taskq.cli.submit:submit", hidden=True),
    "info": Entry(place="taskq.cli.show:status", hidden=True),
}

#: The command's name, in usage lines and in the variable by which shells ask for completions.
NAME = "taskq"

#: What click >= 8.2 raises for a bare `taskq`; its message is the help text.
NO_ARGUMENTS: tuple[type[Exception], ...] = tuple(filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)]))

HELP = """Run Python functions and shell commands as jobs: on this machine's cores, or wherever workers are.

\b
Examples:
  taskq submit tasks:thumbnail a.jpg size:=128         keep a job, print its id
  taskq submit tasks:thumbnail a.jpg --wait            print its result; runs it here when no worker is running
  taskq submit --timeout 1h -- ffmpeg -i a.mov a.mp4   a command
  taskq worker --import tasks --processes 4            run the jobs
  taskq status                                         where they stand
  taskq top                                            the same, live
  taskq map tasks:thumbnail --jsonl items.jsonl -o thumbnails.jsonl --resume
  taskq map --jsonl files.jsonl -- gzip -k {}          a command per line

\b
Jobs are kept in a file of yours unless --url, TASKQ_URL or a settings file say otherwise: sqlite:///PATH,
redis://HOST, rediss://, unix://; local:// keeps nothing and runs them here. taskq config show tells.
Settings: flag, else TASKQ_* (TASKQ_PROCESSES=4), else taskq.toml, else [tool.taskq] in pyproject.toml.
Exit codes: 0 done, 1 failed (also: stdout cannot be written), 2 usage, 3 backend unreachable, 4 not found,
5 cancelled, 124 timed out, 130 interrupted, 141 nobody reads stdout; a command run by submit has its own.
"""


class Commands(click.Group):
    """Import a command when it is asked for, and give an interrupt its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of use, without aliases."""
        return [name for name, entry in CATALOG.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        entry = CATALOG.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry.place.partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        rows = [(name, CATALOG[name].line) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest a command where there is none of that name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            hint = did_you_mean(args[0], CATALOG)
            raise click.UsageError(f"{exc.message.rstrip('.')}{hint}", ctx) from None

    def invoke(self, ctx: click.Context) -> int:
        """Run the command; return its exit code."""
        try:
            return int(super().invoke(ctx) or Exit.OK)
        except KeyboardInterrupt as exc:
            return getattr(exc, "exit_code", Exit.INTERRUPTED)


@click.group(
    cls=Commands,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")
def cli() -> None:
    """Hold the commands."""


def run(args: Sequence[str]) -> int:
    """Run a command line and return its exit code; a user's error is one sentence, never a traceback."""
    hold_standard_descriptors()
    guard_streams()
    try:
        code = int(cli.main(args=list(args), prog_name=NAME, standalone_mode=False) or Exit.OK)
        finish_stdout()
    except OutputClosed:
        drop_stdout()
        return Exit.OUTPUT_CLOSED
    except (click.ClickException, TaskqError) as exc:
        if isinstance(exc, CannotWrite):
            drop_stdout()
        return _tell(exc, args)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    return code


def _tell(error: click.ClickException | TaskqError, args: Sequence[str]) -> int:
    code = code_for(error)
    context = getattr(error, "ctx", None)
    if isinstance(error, click.ClickException) and isinstance(error, NO_ARGUMENTS):
        error.show()
    elif _wants_json(args):
        say_document({"error": {"type": type(error).__name__, "message": sentence(error), "exit_code": code}})
    else:
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        say(f"{sentence(error)}{hint}", error=True)
    return code


def _wants_json(args: Sequence[str]) -> bool:
    """Look at the words themselves: the error may be that they cannot be parsed."""
    end = list(args).index("--") if "--" in args else len(args)
    return "--json" in args[:end]


COMPLETION_HELP = """Print the script that completes taskq's commands and flags in a shell.

\b
Examples:
  taskq completion bash > ~/.local/share/bash-completion/completions/taskq
  taskq completion zsh > "${fpath[1]}/_taskq"
  taskq completion fish > ~/.config/fish/completions/taskq.fish
"""


@click.command("completion", help=COMPLETION_HELP, short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Run the command."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - for this command alone

    root = ctx.find_root()
    kind, name = get_completion_class(shell), root.info_name or "taskq"
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    emit_line(kind(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())
    return Exit.OK

"""The group of commands, and the way out: every error becomes one sentence on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from taskq import __version__
from taskq.cli.exits import Exit, code_for, sentence
from taskq.cli.map import map_command
from taskq.cli.messages import say, say_document
from taskq.cli.output import hold_standard_descriptors
from taskq.cli.submit import submit
from taskq.errors import TaskqError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cli", "run"]

#: The command's name, in usage lines and in the variable by which shells ask for completions.
NAME = "taskq"

#: What click >= 8.2 raises for a bare `taskq`; its message is the help text.
NO_ARGUMENTS: tuple[type[Exception], ...] = tuple(filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)]))

HELP = """Run tasks on all cores of this machine.

\b
Examples:
  taskq submit math:factorial :=20                     one task, its result as JSON
  taskq submit --timeout 1h -- ffmpeg -i a.mov a.mp4   one command
  taskq map tasks:thumbnail --jsonl items.jsonl -o thumbnails.jsonl --resume
  taskq map --jsonl files.jsonl -- gzip -k {}          a command per line

\b
Settings: flag, else TASKQ_* (TASKQ_PROCESSES=4), else taskq.toml, else [tool.taskq] in pyproject.toml.
Exit codes: 0 done, 1 failed, 2 usage, 3 backend unreachable, 4 not found, 5 cancelled, 124 timed out,
130 interrupted; a command run by submit has its own.
"""

COMPLETION_HELP = """Print the script that completes taskq's commands and flags in a shell.

\b
Examples:
  taskq completion bash > ~/.local/share/bash-completion/completions/taskq
  taskq completion zsh > "${fpath[1]}/_taskq"
  taskq completion fish > ~/.config/fish/completions/taskq.fish
"""


class Commands(click.Group):
    """List the commands as they were added, and give the two quiet endings their exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of use."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> int:
        """Run the command; return its exit code."""
        try:
            return int(super().invoke(ctx) or Exit.OK)
        except BrokenPipeError:
            _forget_stdout()
            return Exit.OUTPUT_CLOSED
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


@click.command("completion", help=COMPLETION_HELP, short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Run the command."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(kind(cli, {}, NAME, f"_{NAME.upper()}_COMPLETE").source())
    return Exit.OK


for command in (submit, map_command, completion):
    cli.add_command(command)


def run(args: Sequence[str]) -> int:
    """Run a command line and return its exit code; a user's error is one sentence, never a traceback."""
    hold_standard_descriptors()
    try:
        return int(cli.main(args=list(args), prog_name=NAME, standalone_mode=False) or Exit.OK)
    except (click.ClickException, TaskqError) as exc:
        return _tell(exc, args)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED


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


def _forget_stdout() -> None:
    """Keep the interpreter from writing what is left to a stdout that nobody reads."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    if sys.stdout is not None:
        os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)

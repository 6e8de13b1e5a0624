"""`taskq completion`: the script that completes commands and flags in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from taskq.cli.emit import emit_line
from taskq.cli.exits import Exit

__all__ = ["completion"]

HELP = """Print the script that completes taskq's commands and flags in a shell.

\b
Examples:
  taskq completion bash > ~/.local/share/bash-completion/completions/taskq
  taskq completion zsh > "${fpath[1]}/_taskq"
  taskq completion fish > ~/.config/fish/completions/taskq.fish
"""


@click.command("completion", help=HELP, short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Run the command."""
    root = ctx.find_root()
    kind, name = get_completion_class(shell), root.info_name or "taskq"
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    emit_line(kind(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())
    return Exit.OK

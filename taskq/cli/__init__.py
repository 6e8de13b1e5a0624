"""The command `taskq`.

    app                 the group of commands, and how errors end
    submit, map         the two commands: flags, help, what they decide
    mapping, pool       the loop of `map`: lines to the pool, outcomes to rows; the pool
    options, arguments, target     flags; ARGS of `submit`; module:function -> function
    jsonl, resume, output          lines and rows; what an output already holds; where rows go
    lines, commands     what runs in the child processes
    exits, signals, messages, failures, jsontext     exit codes, Ctrl-C, and how things are told

`main` is a thin door: a child process that imports this package loads no click.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from taskq.cli.app import run  # noqa: PLC0415 - child processes import this package, without click

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130  # exits.Exit.INTERRUPTED: Ctrl-C came before there was anything to tidy up
    sys.exit(code)

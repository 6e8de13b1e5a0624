"""The command `taskq`.

    app, catalog        the group of commands, loaded one by one; how errors end
    submit              submit_here: runs it (local://); submit_far: keeps it in a store. making: jobs of words;
                        here: --wait; request, job_flags; ended: its outcome;
                        surroundings: --cwd, --env
    map                 mapping, pool: lines to a queue, outcomes to rows; resume, output: where rows go
    lines, far_lines, commands      what runs in child processes, and in workers
    status, inventory, outcome, control, purge, transfer (moving), doctor, settings, completion, worker, top
                        a verb or a few of them each, over a Store
    stores, waiting     the store that is meant, jobs by what people type; until jobs have ended
    records, facts, tables, screen, times, emit     records as documents and as rows that fit
    instants            what --at means
    exits, signals, messages, failures, jsontext    exit codes, Ctrl-C, and how things are told
    options, arguments, target, jsonl               flags; ARGS; module:function -> function; JSON lines

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

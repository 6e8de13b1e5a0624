"""The command `taskq`: this package's files, and the tasks that workers run for it.

    app, exits          the group of commands, loaded one by one; how errors end, and with which exit code
    submit              local: runs it (local://); remote: keeps it in a store. job_builder: jobs from arguments;
                        run_inline: --wait where there is no worker
    map                 lines to a queue, outcomes to rows; jsonl: the lines; resume, journal: what an earlier run did;
                        row_writer: where rows go; line_task: what runs in child processes and in workers
    show                status, queues, workers, config show
    jobs                result, wait, logs, cancel, retry, pause, resume, purge; outcome: how a job ended
    transfer, doctor, worker, top       a command each
    options, arguments, instants        flags; tasks and their arguments; what --at means
    stores              the store that is meant, jobs by what people type, until jobs have ended
    format, tables, screen              records as documents and as rows; tables that fit; what stdout can show
    tell, jsontext, streams, signals    output and messages; JSON; stdout and stderr that fail; Ctrl-C

`main` is a thin door: a child process that imports this package loads no click.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from taskq.cli.line_task import Outcome

__all__ = ["TASKS", "main", "map_command", "map_line"]

#: What workers run for `taskq map`: by the name that stored jobs have, where it stands, and whether it runs a command.
#: The names stay, whatever files there are; the last two are those of the first version.
TASKS: Final = {
    "taskq.cli:map_line": ("taskq.cli:map_line", False),
    "taskq.cli:map_command": ("taskq.cli:map_command", True),
    "taskq.cli.far_lines:run_far_line": ("taskq.cli:map_line", False),
    "taskq.cli.commands:run_command_line": ("taskq.cli:map_command", True),
}


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from taskq.cli.app import run  # noqa: PLC0415 - child processes import this package, without click

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130  # exits.Exit.INTERRUPTED: Ctrl-C came before there was anything to tidy up
    sys.exit(code)


def map_line(name: str, line: bytes) -> Outcome:
    """Run a task for a line, in a worker, which decides which tasks may run."""
    from taskq.cli.line_task import run_remote_line  # noqa: PLC0415 - as in `main`

    return run_remote_line(name, line)


def map_command(argv: tuple[str, ...], retries: int, line: bytes, **how: Any) -> Outcome:
    """Run a command for a line, in a worker that allows commands."""
    from taskq.cli.line_task import run_command_line  # noqa: PLC0415 - as in `main`

    return run_command_line(argv, retries, line, **how)

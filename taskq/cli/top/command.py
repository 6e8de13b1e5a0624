"""`taskq top`: the command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.emit import emit
from taskq.cli.exits import Exit
from taskq.cli.records import job_document, queue_document, worker_document
from taskq.cli.stores import opened_store, store_flags
from taskq.cli.top.app import run_top
from taskq.cli.top.model import Throughput, look
from taskq.cli.top.view import plain_lines
from taskq.config import parse_duration

if TYPE_CHECKING:
    from taskq.cli.top.model import Snapshot
    from taskq.store import Store

__all__ = ["top"]

HELP = """Watch queues, running jobs, failures and workers, live.

Keys: tab and j/k choose, Enter shows a job with its log, C cancels, K kills, R runs again, P pauses a queue or
resumes it, ? helps, q quits. Without a terminal it prints once what there is.

\b
Examples:
  taskq top
  taskq top --url redis://queue-host/0 --every 5s
  taskq top --json
"""


@click.command("top", help=HELP, short_help="Watch queues, jobs and workers live.")
@click.option("--every", metavar="TIME", default="1s", help="How often to look; default: 1s.")
@store_flags
def top(every: str, **flags: Any) -> int:
    """Run the command."""
    period = parse_duration(every)
    with opened_store(flags) as store:
        if flags["as_json"] or not _is_screen():
            _print_once(store, as_json=flags["as_json"])
        else:
            run_top(store, period)
        return Exit.OK


def _is_screen() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _print_once(store: Store, *, as_json: bool) -> None:
    seen = look(store, Throughput())
    emit(lambda: _document(seen), lambda screen: plain_lines(seen, screen), as_json=as_json)


def _document(seen: Snapshot) -> dict[str, Any]:
    return {
        "url": seen.url,
        "queues": [queue_document(record, seen.workers) for record in seen.queues],
        "running": [job_document(record) for record in seen.running],
        "failed": [job_document(record) for record in seen.failed],
        "workers": [worker_document(record) for record in seen.workers],
    }

"""`taskq queues`, `taskq workers`: what there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.emit import emit
from taskq.cli.exits import Exit
from taskq.cli.messages import say
from taskq.cli.records import (
    QUEUE_COLUMNS,
    WORKER_COLUMNS,
    as_it_runs,
    queue_document,
    queue_row,
    worker_document,
    worker_row,
)
from taskq.cli.stores import opened_store, store_flags
from taskq.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.cli.screen import Line, Screen

__all__ = ["queues", "workers"]

QUEUES_HELP = """Show the queues: what waits, what runs, what became of the rest, and how long the oldest job waits.

\b
Examples:
  taskq queues
  taskq queues --url redis://queue-host/0 --json
"""

WORKERS_HELP = """Show the workers that are alive: where they run, what they serve, what they have done.

\b
Examples:
  taskq workers
  taskq workers --json
"""


@click.command("queues", help=QUEUES_HELP, short_help="Show the queues.")
@store_flags
def queues(**flags: Any) -> int:
    """Run the command."""
    with opened_store(flags, mode="ro") as store:
        serving, now = store.workers(), time.time()
        records = as_it_runs(store.queues(), serving)

        def lines(screen: Screen) -> Sequence[Line]:
            return table(QUEUE_COLUMNS, [queue_row(record, serving, now) for record in records], screen)

        emit(lambda: {"queues": [queue_document(r, serving) for r in records]}, lines, as_json=flags["as_json"])
        if not records and not flags["as_json"]:
            say(f"no queues in {store.url}: taskq submit makes one")
        return Exit.OK


@click.command("workers", help=WORKERS_HELP, short_help="Show the workers.")
@store_flags
def workers(**flags: Any) -> int:
    """Run the command."""
    with opened_store(flags, mode="ro") as store:
        records, now = store.workers(), time.time()

        def lines(screen: Screen) -> Sequence[Line]:
            return table(WORKER_COLUMNS, [worker_row(record, now) for record in records], screen)

        emit(lambda: {"workers": [worker_document(r) for r in records]}, lines, as_json=flags["as_json"])
        if not records and not flags["as_json"]:
            say("no workers: taskq worker starts one")
        return Exit.OK

"""`taskq purge`: forget jobs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.control import PAGE, in_pages
from taskq.cli.emit import emit_document, emit_line
from taskq.cli.exits import Exit
from taskq.cli.messages import ask, say
from taskq.cli.stores import opened_store, store_flags
from taskq.cli.times import parse_older
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.store import JobRecord, Store

__all__ = ["purge"]

HELP = """Forget jobs, with their results and logs: those that have ended, or those in the states given. Asks first.

Running jobs are never forgotten: cancel them. Prints how many are gone.

\b
Examples:
  taskq purge
  taskq purge --state failed --older 7d --yes
  taskq purge --queue mail --state queued --state scheduled
"""

#: The states that can be given: what runs cannot be forgotten.
CHOICES = [str(state) for state in State if state is not State.RUNNING]


@click.command("purge", help=HELP, short_help="Forget jobs.")
@click.option("--state", "states", multiple=True, type=click.Choice(CHOICES), help="Default: all that have ended.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--older", metavar="TIME", help="Only what ended, or was submitted, longer ago: 90, 10m, 7d.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@store_flags
def purge(states: tuple[str, ...], queue: str | None, older: str | None, *, yes: bool, **flags: Any) -> int:
    """Run the command."""
    least = parse_older(older)
    chosen = [State(state) for state in states] or sorted(TERMINAL)
    with opened_store(flags) as store:
        found = [record for record in in_pages(store, chosen, queue) if _is_older(record, least)]
        if found and not yes and not _confirmed(found, store):
            say("nothing was forgotten")
            return Exit.FAILED
        gone = sum(_remove(store, found[start : start + PAGE]) for start in range(0, len(found), PAGE))
        if flags["as_json"]:
            emit_document({"removed": gone})
        else:
            emit_line(f"{gone}")
        return Exit.OK


def _remove(store: Store, records: Sequence[JobRecord]) -> int:
    return sum(store.remove([record.id for record in records]))


def _is_older(record: JobRecord, least: float | None) -> bool:
    instant = record.ended_at if record.state in TERMINAL else record.submitted_at
    return least is None or (instant is not None and time.time() - instant >= least)


def _confirmed(found: Sequence[JobRecord], store: Store) -> bool:
    """Ask on the terminal.

    Raises:
        click.UsageError: there is nobody to ask.
    """
    counts = {state: sum(record.state is state for record in found) for state in State}
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"this would forget {told} in {store.url}, and there is no terminal to ask: add --yes")
    ask(f"Forget {told} in {store.url}? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")

"""`taskq transfer`: move waiting jobs to another store."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.emit import emit_document, emit_line
from taskq.cli.exits import Exit
from taskq.cli.messages import say
from taskq.cli.moving import Mover
from taskq.cli.stores import opened_store
from taskq.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.cli.moving import Moved

__all__ = ["transfer"]

HELP = """Move the jobs that wait from one store to another, with their ids and options, in their order.

While it runs the queues of the old store are paused. It is safe to interrupt and to repeat: a job is never lost,
and runs in one of the two only. Prints how many jobs were moved. What runs, or needs the result of a job that has
run, stays; clients that wait for a moved job find it at the new URL.

\b
Examples:
  taskq transfer sqlite:///home/ann/queue.db redis://queue-host/0
  taskq transfer redis://queue-host/0 sqlite:///home/ann/queue.db --no-progress --json
"""

#: Ids that a message names.
NAMED = 5


@click.command("transfer", help=HELP, short_help="Move waiting jobs to another store.")
@click.argument("from_url", metavar="FROM_URL")
@click.argument("to_url", metavar="TO_URL")
@click.option("--progress/--no-progress", default=None, help="Show how far it is; default: on a terminal.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="Form of messages on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Output and errors as JSON, for programs.")
def transfer(from_url: str, to_url: str, *, progress: bool | None, **flags: Any) -> int:
    """Run the command."""
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(opened_store(flags, from_url))
        new = stack.enter_context(opened_store(flags, to_url, mode="rwc"))
        bar = stack.enter_context(Progress(None, "transfer", progress))
        mover = Mover(old, new, _on(bar))
        try:
            moved = mover.run()
        except BaseException:
            if mover.begun:
                say("transfer: not finished, and the queues of the old store stay paused: run it again", error=True)
            raise
    _tell(moved, as_json=flags["as_json"])
    return Exit.OK


def _on(bar: Progress) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.advance(done - bar.done)

    return advance


def _tell(moved: Moved, *, as_json: bool) -> None:
    total = moved.jobs.total()
    if as_json:
        emit_document(
            {
                "moved": total,
                "queues": dict(moved.jobs),
                "merged": moved.merged,
                "stayed": [{"id": job_id, "why": why} for job_id, why in moved.stayed.items()],
                "running": moved.running,
                "paused": moved.still_paused,
            }
        )
        return
    emit_line(str(total))
    if moved.merged:
        say(f"{moved.merged:,} of them had a key that a job of the new store has: they are one job now")
    for job_id, why in list(moved.stayed.items())[:NAMED]:
        say(f"{job_id} stays: {why}")
    if len(moved.stayed) > NAMED:
        say(f"{len(moved.stayed) - NAMED:,} more stay for such reasons")
    if moved.running:
        say(f"{moved.running:,} jobs run there; run it again when they have ended, should they be retried")
    if moved.still_paused:
        names = " ".join(moved.still_paused)
        say(f"paused there, before this transfer or by one that was interrupted: {names} (taskq resume {names})")

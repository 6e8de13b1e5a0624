"""`taskq doctor`: what is wrong, in plain words, with the cure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from taskq import __version__
from taskq.allowlist import opens
from taskq.cli.exits import Exit
from taskq.cli.format import age, finding_document
from taskq.cli.screen import printable
from taskq.cli.stores import opened_store, store_flags
from taskq.cli.tables import STATE_STYLES, wrapped
from taskq.cli.tell import emit
from taskq.context import awaited_in
from taskq.states import Reason, State
from taskq.store import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from taskq.cli.screen import Line, Screen
    from taskq.store import JobRecord, QueueRecord, Store, WorkerRecord

__all__ = ["doctor"]

HELP = """Look at the store, its queues and its workers; tell what is wrong, and the cure.

Exit code 1 when there is a problem, 3 when the store cannot be reached.

\b
Examples:
  taskq doctor
  taskq doctor --url redis://queue-host/0 --json
"""

#: Queues that are looked at, and findings about them that are told.
QUEUES, TROUBLES = 500, 20

#: Seconds that a job may wait until that is worth a warning, when workers are there.
LONG_WAIT = 60.0

#: The newest failed jobs that are looked at.
FAILED_SEEN = 200

#: Columns of the level in front of each line.
LEVEL = 9

#: Running jobs whose logs are read, and pairs of jobs that are named.
RUNNING_SEEN = 100

#: Waiting jobs, the newest, that are looked at for refusals.
WAITING_SEEN = 500
PAIRS = 5


@click.command("doctor", help=HELP, short_help="Look for problems and suggest cures.")
@store_flags
def doctor(**flags: Any) -> int:
    """Run the command."""
    with opened_store(flags, mode="ro") as store:
        findings = list(store.doctor())
        findings += _of_work(store, {finding.topic for finding in findings})
        emit(
            lambda: {"url": store.url, "findings": [finding_document(finding) for finding in findings]},
            lambda screen: _lines(store.url, findings, screen),
            as_json=flags["as_json"],
        )
        return Exit.FAILED if any(finding.level == "problem" for finding in findings) else Exit.OK


def _lines(url: str, findings: Sequence[Finding], screen: Screen) -> Iterator[Line]:
    yield [(url, "bold")]
    room = None if screen.width is None else max(20, screen.width - LEVEL)
    for finding in findings:
        level = (f"{finding.level:<{LEVEL}}", STATE_STYLES.get(finding.level, ""))
        first, *rest = wrapped(printable(f"{finding.topic}: {finding.text}"), room)
        yield [level, (first, "")]
        for text in rest:
            yield [(" " * LEVEL, ""), (text, "")]
        for text in wrapped(printable(f"cure: {finding.cure}"), room) if finding.cure else ():
            yield [(" " * LEVEL, ""), (text, "cyan")]


# --- what the store itself cannot know


def _of_work(store: Store, told: Collection[str]) -> Iterator[Finding]:
    """Yield what the queues and workers show, whatever the store; `told`: topics that the store has covered."""
    workers = store.workers()
    queues, more = store.some_queues(QUEUES)
    if "workers" not in told:
        yield _about_workers(workers)
    for worker in workers:
        if worker.version and worker.version != __version__:
            yield Finding(
                topic="versions",
                level="warning",
                text=f"worker {worker.name} is taskq {worker.version}, this is {__version__}",
                cure="install the same version everywhere, then restart the worker",
            )
    yield from _about_queues(queues, more, workers)
    yield from _about_waits(store, workers)
    yield from _about_refusals(store.list(states=(State.SCHEDULED, State.QUEUED), limit=WAITING_SEEN))
    yield from _about_failures(store.list(states=(State.FAILED,), limit=FAILED_SEEN))


def _about_waits(store: Store, workers: Sequence[WorkerRecord]) -> Iterator[Finding]:
    """Yield the workers whose processes are all taken by jobs that wait for other jobs."""
    waits: dict[str, list[str]] = {}
    for job in store.list(states=(State.RUNNING,), limit=RUNNING_SEEN):
        awaited = awaited_in(store.log(job.id))
        if awaited and job.worker:
            waits.setdefault(job.worker, []).append(f"{job.id} for {awaited}")
    for worker in workers:
        pairs = waits.get(worker.name, [])
        if len(pairs) >= worker.processes:
            yield Finding(
                topic=f"worker {worker.name}",
                level="problem",
                text=f"all its processes are taken by jobs that wait for other jobs: {', '.join(pairs[:PAIRS])}",
                cure="give such jobs as arguments instead of waiting for them, or a queue with workers of its own; for "
                "now start one more worker",
            )


def _about_workers(workers: Sequence[WorkerRecord]) -> Finding:
    if not workers:
        return Finding(topic="workers", level="ok", text="no worker is running")
    slots = sum(worker.processes for worker in workers)
    hosts = len({worker.host for worker in workers})
    text = f"{len(workers)} running on {hosts} machine{'s' * (hosts > 1)}, {slots} jobs at once"
    return Finding(topic="workers", level="ok", text=text)


def _about_queues(queues: Sequence[QueueRecord], more: int, workers: Sequence[WorkerRecord]) -> Iterator[Finding]:
    """Yield what the queues show; of many troubles of one kind only the first."""
    troubles = [finding for queue in queues for finding in _about_queue(queue, workers)]
    yield from troubles[:TROUBLES]
    if troubles[TROUBLES:] or more:
        text = f"and {len(troubles[TROUBLES:]):,} more findings about queues"
        others = f"; {more:,} more queues were not looked at" if more else ""
        yield Finding(topic="queues", level="warning", text=text + others, cure="taskq queues shows all of them")


def _about_queue(queue: QueueRecord, workers: Sequence[WorkerRecord]) -> Iterator[Finding]:
    waiting = queue.counts.get(State.QUEUED, 0)
    if not waiting:
        return
    told = f"{waiting:,} job{'s wait' if waiting > 1 else ' waits'}"
    if queue.paused:
        yield Finding(
            topic=f"queue {queue.name}",
            level="warning",
            text=f"{told}, and it is paused",
            cure=f"taskq resume {queue.name}",
        )
    elif not any(queue.name in worker.queues for worker in workers):
        yield Finding(
            topic=f"queue {queue.name}",
            level="problem",
            text=f"{told}, and no worker serves it",
            cure=f"taskq worker --queues {queue.name} --import MODULE",
        )
    elif queue.oldest_at is not None and time.time() - queue.oldest_at > LONG_WAIT:
        yield Finding(
            topic=f"queue {queue.name}",
            level="warning",
            text=f"{told}, the oldest for {age(time.time() - queue.oldest_at)}: the workers do not keep up",
            cure="start more workers, or some with more --processes",
        )


def _about_refusals(waiting: Sequence[JobRecord]) -> Iterator[Finding]:
    """Yield the queues in which jobs wait that a worker has taken and could not run."""
    refused: dict[str, list[JobRecord]] = {}
    for record in waiting:
        if record.refusal is not None:
            refused.setdefault(record.queue, []).append(record)
    for queue, records in refused.items():
        first = records[0]
        assert first.refusal is not None  # noqa: S101  # it was looked at above
        yield Finding(
            topic=f"queue {queue}",
            level="warning",
            text=f"{len(records):,} of the newest waiting jobs were refused by workers, as {first.id}: "
            + " ".join(first.refusal.message.split()),
            cure=UNSIGNED
            if first.refusal.reason is Reason.UNSIGNED
            else f"start a worker of this queue that may run them: taskq worker --queues {queue} {opens(first.task)}",
        )


#: What helps where jobs are not signed.
UNSIGNED = (
    "give every client and worker the same TASKQ_SIGNING_KEYS; jobs that none of yours has put are somebody else's: "
    "taskq cancel, or purge"
)

#: Reasons for which jobs fail because of how workers are set up, and what helps.
CURES = {
    "unknown_task": "start the workers with --import for the module, and with --allow-commands for commands",
    "crashed": "look at the memory that the jobs use; taskq status ID shows the signal",
    "undecodable": "install the same version of taskq, and of your own code, everywhere",
    "lost": "see the findings about persistence",
    "unsigned": UNSIGNED,
}


def _about_failures(failed: Sequence[JobRecord]) -> Iterator[Finding]:
    for reason, cure in CURES.items():
        records = [record for record in failed if record.reason is not None and str(record.reason) == reason]
        if records:
            yield Finding(
                topic="failed jobs",
                level="warning",
                text=f"{len(records):,} of the last {len(failed):,} failed as {reason}, the newest {records[0].id}",
                cure=cure,
            )

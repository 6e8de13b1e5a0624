"""Progress of running jobs: what they report, gathered now and then for the store and for the worker's own log.

    child's page, socket, output file ──▶ dispatcher: progress and output of each job ──▶ ProgressUpdate, what is new
                                                                                      └─▶ job_output, a line each
    what is new when a job has ended goes with its outcome

job_output   job, queue, task, text
job_output   ..., left_out: bytes that a job has printed too fast to be shown; `taskq logs` has them
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.context import awaited_in
from taskq.log import get_logger

if TYPE_CHECKING:
    from taskq.executors.worker.runs import PoolRunner, Run
    from taskq.store import ProgressUpdate

__all__ = ["ProgressReporter", "echo", "printable"]

#: Seconds between two looks at running jobs, and until the first one at a job that a free process takes.
_EVERY, _SOON = 0.25, 0.02
#: Jobs named in a warning.
_NAMED: Final = 10

log = get_logger("taskq.worker")
#: Lines that one look shows of one job, and characters of a line.
LINES_MAX: Final = 200
LINE_MAX: Final = 1_000

#: What would act on a terminal instead of being shown.
ACTING: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


class ProgressReporter:
    """What is new of running jobs. Used by the worker's thread."""

    def __init__(self, runner: PoolRunner) -> None:
        self._runner = runner
        #: When to look next, by the monotonic clock.
        self.next_at = 0.0
        #: What ran for certain at the last look: jobs, and runs of chunks.
        self.running: list[Run] = []
        #: Of the last warning: which job waits for which.
        self._waits: dict[str, str] = {}

    def look_soon(self) -> None:
        """Look a moment from now: what is taken now begins at once."""
        now = monotonic()
        if not now <= self.next_at <= now + _SOON:
            self.next_at = now + _SOON

    def gather(self, now: float) -> list[ProgressUpdate]:
        """Return what jobs have said since they were asked last; nothing when that was just now."""
        if now < self.next_at:
            return []
        self.next_at = now + _EVERY
        self.running, running = self._runner.running()
        for run in running:
            echo(run, ended=False)
        self._judge(running)
        return [update for run in running if (update := run.news()) is not None]

    def _judge(self, running: list[Run]) -> None:
        """Say it when every process is taken by a job that waits for another: perhaps none of them can ever end."""
        waits = {
            run.claim.id: awaited
            for run in running
            if run.output is not None and (awaited := awaited_in(run.output.all()))
        }
        if len(waits) < self._runner.processes or waits == self._waits:
            return
        self._waits = waits
        log.warning(
            "jobs_wait_for_jobs",
            waits={job: waits[job] for job in sorted(waits)[:_NAMED]},
            processes=self._runner.processes,
            cure="every process is taken by a job that waits for another one: give that one as an argument instead, "
            "or a queue with workers of its own",
        )


def echo(run: Run, *, ended: bool) -> None:
    """Log what a job has printed since it was looked at last; an incomplete line waits until it has ended."""
    if run.output is None:
        return
    text = run.output.all()
    until = len(text) if ended else text.rfind(b"\n") + 1
    if until <= run.echoed:
        return
    fresh, run.echoed = text[run.echoed : until], until
    about = {"job": run.claim.id, "queue": run.claim.queue, "task": run.task}
    lines = fresh.split(b"\n", LINES_MAX)
    left_out = lines.pop() if len(lines) > LINES_MAX else b""
    for line in lines:
        if line:
            log.info("job_output", **about, text=printable(line[: 4 * LINE_MAX].decode("utf-8", "replace")[:LINE_MAX]))
    if left_out:
        log.info("job_output", **about, left_out=len(left_out))


def printable(text: str) -> str:
    """Return a text in which nothing acts on a terminal."""
    return text.translate(ACTING)

"""What jobs print and log, in the worker's own log, as `rq worker` and others show it: one event for each line.

job_output   job, queue, task, text
job_output   ..., left_out: bytes that a job has printed too fast to be shown; `taskq logs` has them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskq.log import get_logger

if TYPE_CHECKING:
    from taskq.executors.worker.errand import Errand

__all__ = ["echo", "printable"]

log = get_logger("taskq.worker")

#: Lines that one look shows of one job, and characters of a line.
LINES_MAX: Final = 200
LINE_MAX: Final = 1_000

#: What would act on a terminal instead of being shown.
ACTING: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


def echo(errand: Errand, *, ended: bool) -> None:
    """Log what a job has printed since it was looked at last; an incomplete line waits until it has ended."""
    if errand.output is None:
        return
    text = errand.output.all()
    until = len(text) if ended else text.rfind(b"\n") + 1
    if until <= errand.echoed:
        return
    fresh, errand.echoed = text[errand.echoed : until], until
    about = {"job": errand.claim.id, "queue": errand.claim.queue, "task": errand.task}
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

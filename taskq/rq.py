"""What a stock `rq worker` calls to run a job of ours: every such job in Redis names `taskq.rq.run`.

The name is short because Redis keeps a job's record in its small form, which takes half the memory, only as long as no
value in it is above 64 bytes; this name, the task's and the arguments are one value.

RQ is not imported for it: where this runs as a job, RQ is there, and says which job it is.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from taskq.codec import encode
from taskq.envelope import pack_results, perform

__all__ = ["NAME", "run"]

#: The name under which RQ finds it.
NAME: Final = "taskq.rq.run"


def run(envelope: bytes) -> Any:
    """Run an envelope as the job that RQ says is running here, with the results of the jobs that it needs.

    Raises:
        UnknownTask, DecodeError: it cannot be run here.
        Exception: whatever the task raises.
    """
    rq = sys.modules.get("rq")
    job = None if rq is None else rq.get_current_job()
    if job is None:
        return perform(envelope)
    return perform(envelope, job.id, results=pack_results(_results(job)))


def _results(job: Any) -> dict[str, bytes]:
    """Return the results that are kept of the jobs that a job of RQ waited for."""
    kept = {need.id: need.latest_result() for need in job.fetch_dependencies()}
    return {
        name: encode(result.return_value)
        for name, result in kept.items()
        if result is not None and result.type is result.Type.SUCCESSFUL
    }

"""Functions that jobs of stock RQ call in these tests; importable by every worker."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Any

from rq import Retry, get_current_job

from taskq.errors import UnknownTask
from taskq.retry import RetryLater

__all__ = [
    "add",
    "ask_for_more",
    "boom",
    "cancel_and_free_dependents",
    "cancel_myself",
    "die",
    "give",
    "give_lock",
    "note_and_go",
    "note_error",
    "note_error_and_stop",
    "note_failure",
    "note_status",
    "note_stop",
    "note_success",
    "note_where",
    "refuse",
    "retry_later",
    "run_until",
    "stop_nothing",
    "talk_until",
    "wait_for_the_end",
    "whoami",
    "whoami_by_variables",
]


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


def give(value: Any) -> Any:
    """Return it."""
    return value


def boom(*_: Any) -> None:
    """Raise."""
    raise ValueError("no good")


def ask_for_more() -> None:
    """Ask to be run again, as jobs of taskq do."""
    raise RetryLater(0, counted=False)


def whoami() -> dict[str, Any]:
    """Return what RQ says of the running job, and leave a note in its meta."""
    job: Any = get_current_job()
    job.meta["seen"] = job.meta.get("seen", 0) + 1
    job.save_meta()
    return {"has an id": bool(job.id), "origin": job.origin, "worker": job.worker_name, "meta": job.meta}


def retry_later(times: int) -> Any:
    """Ask to be run again."""
    return Retry(max=times)


def note_and_go() -> None:
    """Note that it ran."""
    job: Any = get_current_job()
    job.connection.rpush("noted", f"ran {job.id}")


def refuse(*_: Any) -> None:
    """Raise what a worker says of tasks that it does not know."""
    raise UnknownTask("not mine")


def note_success(job: Any, connection: Any, result: Any) -> None:
    """Be a success callback."""
    connection.rpush("noted", f"success {job.id} {result}")


def note_failure(job: Any, connection: Any, kind: type, value: Exception, _trace: Any) -> None:
    """Be a failure callback."""
    connection.rpush("noted", f"failure {job.id} {kind.__name__} {value}")


def note_error(job: Any, kind: type, value: Exception, trace: Any) -> None:
    """Be an exception handler."""
    job.meta["handled"] = job.meta.get("handled", 0) + 1
    job.save_meta()
    job.connection.rpush("noted", f"error {job.id} {kind.__name__} {value} {trace is not None}")


def note_error_and_stop(job: Any, *_: Any) -> bool:
    """Be an exception handler after which no other one is called."""
    job.connection.rpush("noted", f"last {job.id}")
    return False


def note_stop(job: Any, connection: Any) -> None:
    """Be a callback of stopped jobs, while RQ still says that the job runs."""
    connection.rpush("noted", f"stopped {job.id} {job.get_status().value}")


def wait_for_the_end() -> None:
    """Say that it has begun, and run until it is killed."""
    job: Any = get_current_job()
    job.connection.rpush("noted", f"began {job.id}")
    time.sleep(600)


def give_lock() -> Any:
    """Return what no serializer of RQ can write."""
    return threading.Lock()


def die() -> None:
    """End the process that runs this."""
    os._exit(3)


def whoami_by_variables() -> list[str]:
    """Return what RQ's work horse says by variables."""
    return [os.environ["RQ_JOB_ID"], os.environ["RQ_WORKER_ID"]]


def run_until(key: str) -> str:
    """Say that it has begun, and run until a list has something."""
    job: Any = get_current_job()
    job.connection.rpush("noted", f"began {job.id}")
    job.connection.blpop(key, timeout=60)
    return "ran on"


def talk_until(key: str) -> None:
    """Say something in every way, wait until a list has something, say more and fail."""
    print("printed by a job")
    sys.stderr.write("said on stderr\n")
    logging.getLogger("shop").warning("logged by a job")
    logging.getLogger("rq.worker").info("a note for rq")
    run_until(key)
    print("\x1b[31m")
    sys.stdout.write("the rest")
    raise ValueError("no good")


def cancel_myself() -> str:
    """Have the running job cancelled by RQ's client."""
    job: Any = get_current_job()
    job.cancel()
    return "ran on"


def cancel_and_free_dependents(key: str = "free") -> str:
    """Have the running job cancelled by RQ's client, once something is in a list, and what waits for it queued."""
    job: Any = get_current_job()
    job.connection.blpop(key, timeout=60)
    job.cancel(enqueue_dependents=True)
    return "ran on"


def note_status(job: Any, connection: Any, *_: Any) -> None:
    """Be a callback that notes where the job stands, for RQ and for itself."""
    connection.rpush("noted", job.get_status(refresh=False).value)


def note_where(job: Any, connection: Any, *told: Any) -> None:
    """Be a callback of any kind that notes, for its job alone, where that stands and how much it was told."""
    connection.rpush(f"noted:{job.id}", f"{job.get_status(refresh=False).value} {len(told)}")


def stop_nothing(_job: Any, _connection: Any) -> None:
    """Be a callback of stopped jobs."""

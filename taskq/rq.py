"""The function by which a stock `rq worker` runs a job of ours: every such job in Redis names `taskq.rq.run`.

The name is short because Redis keeps a job's record in its small form, which takes half the memory, only as long as no
value in it is above 64 bytes; this name, the task's and the arguments are one value.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__all__ = ["NAME", "run"]

#: The name under which RQ finds it.
NAME: Final = "taskq.rq.run"


def run(envelope: bytes) -> Any:
    """Run an envelope in a stock `rq worker` and return the value; of a chunk, the bytes of its records.

    Raises:
        UnknownTask, DecodeError: it cannot be run here.
        Exception: whatever the task raises.
    """
    return import_module("taskq.executors.rq.guest").run(envelope)

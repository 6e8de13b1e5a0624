"""What tests may ask of a queue that users cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskq import TaskQueue


def executor_of(queue: TaskQueue) -> Any:
    """Return the executor behind a queue."""
    return queue._executor  # noqa: SLF001  # the one place

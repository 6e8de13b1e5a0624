"""The task of examples/fleet.py: a module of its own, because workers import it by its name."""

from __future__ import annotations

import socket
from typing import Any, cast

from examples.stdlib_metrics import measure
from taskq import Retry, task


@task(timeout=60, retry=Retry(2, on=(OSError,)))  # a file that is no Python stays so
def survey(path: str) -> tuple[str, int, str, str]:
    """Measure one file; return its module, its highest complexity, the function that has it, and this machine."""
    row = measure(path)
    hardest = cast("dict[str, Any]", row["hardest"]) or {"name": "-", "complexity": 0}
    return str(row["module"]), hardest["complexity"], hardest["name"], socket.gethostname()

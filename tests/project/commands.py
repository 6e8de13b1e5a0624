"""Run a command as a newcomer does: the environment's programs on the path, no settings from around."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The checkout.
ROOT = Path(__file__).parents[2]

#: Seconds that a command may take; below pytest-timeout's 60, so that what it printed is shown.
LIMIT = 50.0


def run(
    command: list[str],
    folder: Path,
    *,
    path: Path | None = None,
    limit: float = LIMIT,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command without stdin in a session of its own; when it hangs, that is killed as a whole.

    `path` is the folder whose programs come first, by default this Python's; `environment` comes on top.
    """
    programs = str(path or Path(sys.executable).parent)
    around = {key: value for key, value in os.environ.items() if not key.startswith(("TASKQ_", "PYTHON"))}
    around["PATH"] = f"{programs}{os.pathsep}{around['PATH']}"
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**around, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        kill_session(process)
        stdout, stderr = process.communicate()
        raise AssertionError(f"{command} hung for {limit:g} s\nstdout: {stdout}\nstderr: {stderr}") from None
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def kill_session(process: subprocess.Popen[str]) -> None:
    """Kill a process and those it started, as far as they have stayed in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def output_of(command: list[str], folder: Path, *, limit: float = LIMIT, path: Path | None = None) -> str:
    """Run a command that must succeed, and return its stdout."""
    done = run(command, folder, limit=limit, path=path)
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout

"""Programs that tests start as users would: a file, its own session, its output kept, nothing of it left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests import processes
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

#: Seconds a script may take; pytest-timeout fires at 60.
LIMIT = 50.0

#: The folder from which `tests` and `taskq` are imported.
ROOT = Path(__file__).parent.parent


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user's program: what the caller's shell set for Python's own output is left out."""
    mine = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**mine, "PYTHONPATH": str(ROOT), **more}


class Script:
    """A Python program in a session of its own; leaving the `with` block ends whatever is left of that session."""

    def __init__(
        self,
        folder: Path,
        source: str,
        *arguments: object,
        name: str = "script.py",
        main: str = "file",
        prefix: Sequence[str] = (),
    ) -> None:
        """Prepare it. `main`: how it is started, as a "file", by "-c", or by "-m"; `prefix`: behind which command."""
        self.path = folder / name
        self.path.write_text(textwrap.dedent(source), encoding="utf-8")
        how = {"file": [str(self.path)], "-c": ["-c", self.path.read_text()], "-m": ["-m", self.path.stem]}[main]
        self.command = [*prefix, sys.executable, *how, *map(str, arguments)]
        self.stdout_path = folder / f"{name}.stdout"
        self.stderr_path = folder / f"{name}.stderr"
        self.folder = folder

    def __enter__(self) -> Self:
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=environment(TMPDIR=str(self.folder)),
                start_new_session=True,
                preexec_fn=processes.take_signals,  # noqa: PLW1509 - it sets signals, no more
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        processes.end(self.left())
        self.process.wait()
        eventually(lambda: not self.left(), f"the processes of {self.command} to go after SIGKILL")

    @property
    def pid(self) -> int:
        """Return the pid of the program, which is also that of its session and process group."""
        return self.process.pid

    @property
    def stdout(self) -> str:
        """Return what it has printed so far."""
        return self.stdout_path.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """Return what it has complained of so far."""
        return self.stderr_path.read_text(encoding="utf-8")

    def left(self) -> list[processes.Seen]:
        """Return the living processes of its session, itself included."""
        return processes.of_session(self.process.pid)

    def has_children(self) -> bool:
        """Return whether it has started any other process."""
        return len(self.left()) > 1

    def signal_group(self, number: int) -> None:
        """Send a signal to its process group, as a terminal does for Ctrl-C."""
        os.killpg(self.process.pid, number)

    def wait(self, limit: float = LIMIT) -> int:
        """Return its exit code; a hang fails with all that it has said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(limit)
        raise AssertionError(f"{self.command} hung for {limit:g} s\nstdout: {self.stdout}\nstderr: {self.stderr}")

    def wait_for_line(self, start: str) -> str:
        """Return the first complete line of its output that begins so, without that beginning."""

        def find() -> list[str]:
            ended = self.process.poll()
            lines = self.stdout.splitlines(keepends=True)
            found = [line for line in lines if line.startswith(start) and line.endswith("\n")]
            if not found and ended is not None:
                raise AssertionError(f"{self.command} ended with {ended}: {self.stdout}\nstderr: {self.stderr}")
            return found

        return eventually(find, f"{self.command} to print a line with {start!r}")[0].removeprefix(start).strip()

    def assert_gone(self, within: float = 20.0) -> None:
        """Fail unless every process of its session ends."""
        eventually(
            lambda: not self.left(),
            f"the processes of {self.command} to end; left: {[seen.describe() for seen in self.left()]}",
            within,
        )


def run(folder: Path, source: str, *arguments: object, main: str = "file", code: int = 0) -> Script:
    """Run a program to its end; fail unless it ends with this exit code and leaves no process behind."""
    with Script(folder, source, *arguments, main=main) as script:
        ended = script.wait()
        assert ended == code, f"exit code {ended}\nstdout: {script.stdout}\nstderr: {script.stderr}"
        script.assert_gone()
    return script

"""The installed command `taskq`, run in a folder that holds a user's project."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests import processes
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

#: Seconds a command may take; below pytest-timeout's 60, so that what it printed is shown.
LIMIT = 50.0

HERE = Path(__file__).parent
PROJECT = HERE / "project"
GOLDEN = HERE / "golden"

#: Set to write the golden files anew instead of comparing: look at the difference before committing it.
REWRITE = "TASKQ_TEST_REWRITE_GOLDEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command left: exit code and output."""

    code: int
    out: str
    err: str


class Command:
    """A running `taskq` in a session of its own; leaving the block ends whatever is left of that session."""

    def __init__(
        self,
        folder: Path,
        *words: object,
        stdout: int | None = None,
        stdin: int | None = None,
        name: str = "",
        env: dict[str, str] | None = None,
        ignored: Collection[int] = (),
    ) -> None:
        """Prepare it; `name` begins the names of its output files, where several run at a time.

        `ignored`: the signals that it ignores from its start, as under nohup.
        """
        self._ignored = tuple(ignored)
        self.folder = folder
        self._name = name
        self._env = env or {}
        self._words = [program(), *map(str, words)]
        self._stdout = stdout
        self._stdin = stdin

    def __enter__(self) -> Self:
        self._err = self.folder / f"{self._name}stderr"
        self._out = self.folder / f"{self._name}stdout"
        with self._err.open("wb") as err, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                self._words,
                cwd=self.folder,
                stdin=subprocess.DEVNULL if self._stdin is None else self._stdin,
                stdout=out if self._stdout is None else self._stdout,
                stderr=err,
                env=environment(self.folder, **self._env),
                start_new_session=True,
                preexec_fn=partial(processes.take_signals, self._ignored),  # noqa: PLW1509 - it sets signals, no more
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes.end(self.left())
        self.process.wait()
        eventually(lambda: not self.left(), "the session to end after SIGKILL")

    @property
    def out(self) -> str:
        """Return what it has written to stdout so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """Return what it has written to stderr so far."""
        return self._err.read_text(encoding="utf-8")

    def left(self) -> list[processes.Seen]:
        """Return the living processes of its session."""
        return processes.of_session(self.process.pid)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Send a signal to its process group, as a terminal does for Ctrl-C."""
        os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """Return its exit code; a hang fails with what it has said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(LIMIT)
        raise AssertionError(f"{self._words} hung\nstdout: {self.out}\nstderr: {self.err}")

    def assert_gone(self) -> None:
        """Fail unless every process of its session ends by itself."""
        eventually(lambda: not self.left(), f"{self._words} to leave nothing; left {self.left()}")


def program() -> str:
    """Return the path of the installed command."""
    return str(Path(sys.executable).parent / "taskq")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return a user's environment: no settings from around, temporary files in the test's folder."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "PYTHON"))}
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    ours = {"TMPDIR": str(temporary), "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "100", "NO_COLOR": "1"}
    return {**around, **ours, **more}


def taskq(folder: Path, *words: object, stdin: bytes | None = None, **more: str) -> Done:
    """Run a command to its end and see that it leaves no process and no temporary file."""
    process = subprocess.Popen(
        [program(), *map(str, words)],
        cwd=folder,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder, **more),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"{words} hung\nstdout: {out!r}\nstderr: {err!r}") from None
    eventually(lambda: not processes.of_session(process.pid), f"{words} to leave no process")
    assert os.listdir(folder / "tmp") == []
    return Done(code=process.returncode, out=out.decode(errors="backslashreplace"), err=err.decode())


def refused(folder: Path, *words: object, code: int = 2, stdin: bytes | None = None) -> str:
    """Run a command that must be refused with one sentence and no data; return the sentence."""
    done = taskq(folder, *words, stdin=stdin)
    assert (done.code, done.out) == (code, ""), done
    assert "Traceback" not in done.err
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("taskq: ")
    return lines[0].removeprefix("taskq: ")


def new_project(folder: Path) -> Path:
    """Copy the project into a folder."""
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def assert_golden(name: str, text: str, *, words: bool = False) -> None:
    """Compare a text with the golden file of that name; `words` leaves out how it is broken into lines."""
    path = GOLDEN / name
    if os.environ.get(REWRITE):
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8")
    same = text.split() == golden.split() if words else text == golden
    assert same, f"{path} differs; if it should, set {REWRITE}=1 and run again"

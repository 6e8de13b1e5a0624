"""Commands as jobs: fill the placeholders of one, run it, keep its exit code and its output.

    ["gzip", "-k", "{}"] + "a.txt" ──fill──▶ ["gzip", "-k", "a.txt"] ──run_command──▶ exit code, output, time

A command stays in the process group of the child that runs it, so that the pool's kill at a hard timeout
takes the command along; and the kernel kills it when that child ends (`_guard`), so that a killed pool leaves
nothing behind. Never a shell: what an item holds is one argument, whatever characters it has.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import selectors
import signal
import socket
import stat
import subprocess
import sys
import time
from functools import cache
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any

from taskq.captured import HELD, Kept, packed, plain
from taskq.context import current_job
from taskq.errors import NotInJob, TaskqError
from taskq.names import did_you_mean
from taskq.redact import without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from taskq.captured import Stream

__all__ = [
    "NOT_EXECUTABLE",
    "NOT_FOUND",
    "BadItem",
    "CommandFailed",
    "describe_exit_code",
    "describe_failure",
    "fill",
    "run_attached",
    "run_command",
]

#: Bytes kept of a command's stdout, and of its stderr: half from the start, half from the end.
OUTPUT_LIMIT = 1 << 20

#: Bytes of the output of a command that failed, of each stream and compressed, that its failure carries.
FAILURE_LIMIT = 24_576

#: Bytes read from a pipe at once: what a pipe holds.
READ_SIZE = 1 << 16

#: Bytes that a pipe holds at the most, where a command has made it as large as it may.
PIPES_HOLD = 1 << 20

#: Seconds between two looks at whether a command has ended that has not closed its streams.
LOOK = 0.05

#: Seconds between SIGTERM and SIGKILL for a command whose job is told to stop.
GRACE = 5.0

#: Exit codes of a command that could not be started, as shells give them.
NOT_FOUND = 127
NOT_EXECUTABLE = 126

#: What a shell adds to the number of the signal that ended a command.
SIGNAL_BASE = 128

#: Characters of a command's stderr that stand in the message of its failure.
STDERR_SHOWN = 200

#: Where a stream of a command goes besides being kept.
TEES = {"stdout": 1, "stderr": 2}

PLACEHOLDER = re.compile(r"\{(\.|//?|/\.|\w*)\}")

#: Placeholders for the parts of a path, as GNU parallel names them.
PATH_PARTS: dict[str, Callable[[str], str]] = {
    ".": lambda text: str(PurePath(text).with_suffix("")) if PurePath(text).name else text,
    "/": lambda text: PurePath(text).name,
    "//": lambda text: str(PurePath(text).parent),
    "/.": lambda text: PurePath(text).stem,
}


class BadItem(TaskqError, ValueError):
    """An item has nothing to put in the place of a command's placeholder."""


class CommandFailed(TaskqError):
    """A command ended with another exit code than 0: `exit_code`.

    `output` is what it wrote, as far as that has room, in the form of `captured`.
    """

    def __init__(self, message: str = "", exit_code: int = 1, output: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code
        self.output = dict(output or {})

    def __str__(self) -> str:
        return str(self.args[0])


def fill(argv: Sequence[str], item: object) -> list[str]:
    """Return a command with an item in the place of its placeholders, or at its end where there are none.

    `{}` is the item (a text bare, anything else as JSON), `{name}` a field of an object, `{0}` an entry of an
    array; `{.}` the item without its extension, `{/}` its file name, `{//}` its folder, `{/.}` its file name
    without the extension. Other braces stay as they are.

    Raises:
        BadItem: the item is an object without that field, or an array without that entry.
    """
    if not any(PLACEHOLDER.search(part) for part in argv[1:]) and not PLACEHOLDER.search(argv[0]):
        return [*argv, _text(item)]
    return [PLACEHOLDER.sub(lambda match: _value(match[0], match[1], item), part) for part in argv]


def _value(whole: str, name: str, item: object) -> str:
    if name in PATH_PARTS:
        return PATH_PARTS[name](_text(item))
    if not name:
        return _text(item)
    if isinstance(item, dict):
        return _text(_field(item, name))
    if isinstance(item, list) and name.isdecimal():
        if int(name) < len(item):
            return _text(item[int(name)])
        raise BadItem(f"the item has {len(item)} entries, {{0}} is the first: there is no {whole}")
    return whole


def _field(item: dict[str, Any], name: str) -> object:
    if name in item:
        return item[name]
    hint = did_you_mean(name, item) or f"; it has {', '.join(item) or 'none'}"
    raise BadItem(f"the item has no field {name!r}{hint}")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- running


def run_command(
    argv: Sequence[str],
    *,
    limit: int = OUTPUT_LIMIT,
    grace: float = GRACE,
    tee: bool = False,
    check: bool = False,
    pack: bool = False,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a command to its end, without input; return `exit_code`, `stdout`, `stderr` and `duration_s`.

    `tee`: what it writes goes to this process's own stdout and stderr too, as it comes. `check`: an exit code other
    than 0 is raised as CommandFailed. `cwd`: the folder it runs in. `env`: variables that it gets besides ours.

    A command that a signal ended has exit code 128 + signal, one that is not there 127, as in a shell; where the folder
    is not there it is 126. Of output longer than `limit` bytes the middle is left out, and `stdout_dropped_bytes` or
    `stderr_dropped_bytes` say how much. Bytes that are not UTF-8 come as U+FFFD, and beside that as they are in
    `stdout_base64`; with `pack` they are in `stdout_data`, compressed, and `limit` is for these (`captured`). An
    exception raised in it (SoftTimeout) ends the command: SIGTERM, after `grace` seconds SIGKILL.
    """
    began = time.monotonic()
    kept = {name: Kept(HELD if pack else limit, _passed_on(name) if tee else None) for name in TEES}
    try:
        process = _start(argv, subprocess.PIPE, cwd, env)
    except OSError as exc:
        with contextlib.suppress(_Unread):
            kept["stderr"].add(_why_not(argv[0], exc, cwd).encode(errors="replace"))
        code = _code_of(exc)
    else:
        with _ended(process, grace):
            _read_all(process, kept)
            code = process.wait()
    duration, code = round(time.monotonic() - began, 6), _as_shell(code)
    streams = {name: part.stream() for name, part in kept.items()}
    if check and code != 0:
        raise _failed(argv[0], code, streams)
    result: dict[str, Any] = {"exit_code": code}
    for name, stream in streams.items():
        result |= packed(name, stream, limit) if pack else plain(name, stream)
    return {**result, "duration_s": duration}


def _failed(command: str, code: int, streams: Mapping[str, Stream]) -> CommandFailed:
    """Return the error of a command, with as much of its output as a failure carries."""
    message = describe_failure(command, {"exit_code": code, "stderr": streams["stderr"].text()})
    output: dict[str, Any] = {}
    for name, stream in streams.items():
        output |= packed(name, stream, FAILURE_LIMIT)
    return CommandFailed(message, code, output)


def run_attached(
    argv: Sequence[str], *, grace: float = GRACE, cwd: str | None = None, env: Mapping[str, str] | None = None
) -> int:
    """Run a command on this process's own stdout and stderr, without input; return its exit code."""
    try:
        process = _start(argv, None, cwd, env)
    except OSError as exc:
        sys.stderr.write(f"taskq: {_why_not(argv[0], exc, cwd)}\n")
        sys.stderr.flush()
        return _code_of(exc)
    with _ended(process, grace):
        return _as_shell(process.wait())


def describe_exit_code(code: int) -> str:
    """Say in words how a command ended: "exited with code 2", "was killed by SIGKILL"."""
    if code > SIGNAL_BASE:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(code - SIGNAL_BASE).name}"
    return f"exited with code {code}"


def describe_failure(command: str, result: Mapping[str, Any]) -> str:
    """Say in words how a command failed: "gzip exited with code 2: no such file"."""
    words = str(result["stderr"]).strip()
    tail = words[-STDERR_SHOWN:] if len(words) > STDERR_SHOWN else words
    return f"{command} {describe_exit_code(result['exit_code'])}{': ' if tail else ''}{tail}"


class _NoFolder(OSError):
    """The folder of a command cannot be entered: Popen's own errors do not tell it from the command."""


class _Unread(Exception):
    """The output of the command cannot be passed on."""


def _passed_on(name: str) -> Callable[[bytes], None]:
    """Return what writes to this process's own stdout or stderr."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(TEES[name], rest) :]
        except OSError as exc:
            if not isinstance(exc, BrokenPipeError):
                _tell(f"cannot write {name} of the command: {exc.strerror}")
            raise _Unread from None

    return write


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(TEES["stderr"], f"taskq: {text}\n".encode(errors="replace"))


def _start(
    argv: Sequence[str], pipe: int | None, cwd: str | None, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    if cwd is not None:
        _check_folder(cwd)
    guard = _guard() if _in_pool() else None
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        cwd=cwd,
        env=_environment(env or {}),
        pass_fds=() if guard is None else (guard,),
    )


def _check_folder(cwd: str) -> None:
    """Raise _NoFolder where a command could not be run in a folder."""
    code = 0 if os.access(cwd, os.X_OK) else errno.EACCES
    try:
        code = code if stat.S_ISDIR(os.stat(cwd).st_mode) else errno.ENOTDIR  # noqa: PTH116  # see cwd
    except OSError as exc:
        code = exc.errno or errno.ENOENT
    if code:
        raise _NoFolder(code, os.strerror(code))


def _environment(more: Mapping[str, str]) -> Mapping[str, str] | None:
    """Add what the command was given, and tell it which job it is."""
    around = without_password(os.environ)
    try:
        job = current_job()
    except NotInJob:
        return {**around, **more} if more or around is not os.environ else None
    return {**around, **more, "TASKQ_JOB_ID": job.id, "TASKQ_ATTEMPT": str(job.attempt)}


def _in_pool() -> bool:
    """Return whether this process is a pool's child, which leads a process group of its own."""
    try:
        current_job()
    except NotInJob:
        return False
    return os.getpgrp() == os.getpid()


@cache
def _guard() -> int | None:
    """Return a descriptor for commands to inherit, by which the kernel kills our group when we end.

    It is the read end of a pipe that is never written to. We hold the only write end; when we die, however that
    comes, the read end in the command's hands makes the kernel send SIGKILL to the group. (PR_SET_PDEATHSIG
    needs code between fork and exec, which makes the start of a command 2.5 times slower, and does not reach
    what the command started.) None where there is no F_SETSIG: there an orphan runs on to its end.
    """
    if sys.platform != "linux":
        return None
    reader, writer = os.pipe()
    _guards.append(writer)
    fcntl.fcntl(reader, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    return reader


#: The write end of our guard, for whose end the kernel waits.
_guards: list[int] = []


def _in_forked_process() -> None:
    """Hold no guard of the process that was forked: it ends with that one."""
    while _guards:
        os.close(_guards.pop())
    _guard.cache_clear()


os.register_at_fork(after_in_child=_in_forked_process)


def _read_all(process: subprocess.Popen[bytes], kept: Mapping[str, Kept]) -> None:
    """Read both streams, so that neither can fill up and stop the command, until both are closed or it has ended.

    What it leaves running in the background may hold them open for as long as it likes.
    """
    with selectors.DefaultSelector() as selector:
        streams: dict[str, IO[bytes] | None] = {"stdout": process.stdout, "stderr": process.stderr}
        for name, stream in streams.items():
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, kept[name])
        while selector.get_map():
            ended = process.poll() is not None
            ready = [key for key, _ in selector.select(0 if ended else LOOK)]
            for key in ready:
                _read(selector, key)
            if ended:
                _read_the_rest(selector)
                return


def _read_the_rest(selector: selectors.BaseSelector) -> None:
    """Read what is in the pipes of a command that has ended, and no more than they hold."""
    for _ in range(PIPES_HOLD // READ_SIZE):
        ready = [key for key, _ in selector.select(0)]
        if not ready:
            return
        for key in ready:
            _read(selector, key)


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    data = os.read(key.fd, READ_SIZE)
    try:
        key.data.add(data)
    except _Unread:  # the command is told in the same way, by the next that it writes
        data = b""
    if not data:
        selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]  # a file, as was registered


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes], grace: float) -> Iterator[None]:
    """See that the command has ended when the block does, however the block ends."""
    try:
        yield
    except BaseException:
        _end(process, grace)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    _terminate(process)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Ask the command to stop; in a pool's child also what the command started, by way of the group."""
    if not _in_pool():
        process.terminate()
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        os.killpg(0, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def _as_shell(code: int) -> int:
    return SIGNAL_BASE - code if code < 0 else code


def _code_of(exc: OSError) -> int:
    return NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE


def _why_not(command: str, exc: OSError, cwd: str | None) -> str:
    if isinstance(exc, _NoFolder):
        return (
            f"{command}: cannot be run in {cwd} on {socket.gethostname()}: {exc.strerror} (--cwd names another folder)"
        )
    if isinstance(exc, FileNotFoundError):
        return f"{command}: command not found"
    return f"{command}: cannot be run: {exc.strerror}"

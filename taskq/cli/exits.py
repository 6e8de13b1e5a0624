"""Exit codes by name: which one an error, or the end of a job, ends the program with."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import click

from taskq.cli.streams import OutputClosed
from taskq.errors import (
    BackendUnavailable,
    ConfigError,
    EncodeError,
    JobCancelled,
    JobNotFound,
    MissingExtra,
    StoreDamaged,
    StoreFull,
    TaskRefused,
    UnknownTask,
)
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Exit", "code_for", "exit_of", "exit_of_all", "sentence"]


class Exit(IntEnum):
    """Name the exit codes; a command that `taskq submit -- ...` ran has its own."""

    OK = 0
    #: The job, or any item of a map, failed; or stdout could not be written, as on a full disk.
    FAILED = 1
    #: The command line, a setting, a task's name or an input file is wrong.
    USAGE = 2
    #: What the URL names cannot be reached, is damaged, or has no room.
    BACKEND = 3
    #: No job has this id.
    NOT_FOUND = 4
    CANCELLED = 5
    #: Waiting took too long; as timeout(1).
    WAIT_TIMEOUT = 124
    #: Ctrl-C; 128 + the number of the signal, as in a shell.
    INTERRUPTED = 130
    #: Who read our output went away, as with `| head`; 128 + SIGPIPE.
    OUTPUT_CLOSED = 141


#: The first class that fits decides; what fits none is FAILED.
CODES: Mapping[type[BaseException], Exit] = {
    click.ClickException: Exit.USAGE,
    ConfigError: Exit.USAGE,
    UnknownTask: Exit.USAGE,
    TaskRefused: Exit.USAGE,
    EncodeError: Exit.USAGE,
    MissingExtra: Exit.USAGE,
    BackendUnavailable: Exit.BACKEND,
    StoreDamaged: Exit.BACKEND,
    StoreFull: Exit.BACKEND,
    JobNotFound: Exit.NOT_FOUND,
    JobCancelled: Exit.CANCELLED,
    OutputClosed: Exit.OUTPUT_CLOSED,
}


def code_for(error: BaseException) -> Exit:
    """Return the exit code for an error that ended a command."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), Exit.FAILED)


def sentence(error: BaseException) -> str:
    """Return what went wrong in one line."""
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return " ".join(text.split()) or type(error).__name__


#: Which exit code the end of a job means.
EXITS = {State.SUCCEEDED: Exit.OK, State.FAILED: Exit.FAILED, State.CANCELLED: Exit.CANCELLED}


def exit_of(state: State) -> Exit:
    """Return the exit code that the end of a job means."""
    return EXITS.get(state, Exit.WAIT_TIMEOUT)


def exit_of_all(states: Iterable[State]) -> Exit:
    """Return the exit code of several: that of a failed one, else of a cancelled one, else of one not ended."""
    codes = {exit_of(state) for state in states}
    order = (Exit.FAILED, Exit.CANCELLED, Exit.WAIT_TIMEOUT)
    return next((code for code in order if code in codes), Exit.OK)

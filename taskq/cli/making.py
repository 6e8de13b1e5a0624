"""Jobs for a store, made of what a command line of `taskq submit` says."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from taskq.cli.arguments import Arguments, parse_arguments, spread
from taskq.cli.options import job_options
from taskq.cli.output import claimed_stdout
from taskq.cli.target import check_call, find_task
from taskq.codec import encode
from taskq.envelope import CALL, MAX_BYTES, Template
from taskq.errors import ConfigError, UnknownTask
from taskq.ids import new_id
from taskq.job import JobOptions
from taskq.label import label_of, parameters_of
from taskq.redact import safe_url
from taskq.shell import fill
from taskq.store import NewJob
from taskq.tasks import name_of
from taskq.trust import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskq.cli.request import Request
    from taskq.config import Settings

__all__ = ["Maker", "maker_of"]

#: The share of a result that the output of a command may take, compressed, for each of its streams; a part of it is
#: there as text too.
SHARE = 4

#: Characters of the label of a command.
LABEL = 100

#: A word of a command that says a secret, as --password=x.
SECRET = re.compile(r"(?i)^([\w-]*(?:passw(?:or)?d|secret|token|api[-_]?key|credential)[\w-]*=).+")

#: How a task is named that is not looked for here.
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Maker:
    """Make jobs of one task with the same options. `limit`: the bytes that a job may have."""

    def __init__(self, task: str, options: JobOptions, limit: int) -> None:
        self._task = task
        self._options = options
        self._limit = limit
        self._template = Template(CALL, task, options)

    def from_request(self, request: Request) -> NewJob:
        """Return the job of a whole command line.

        Raises:
            ConfigError: the task does not take these arguments.
        """
        raise NotImplementedError

    def from_value(self, value: Any) -> NewJob:
        """Return the job of a line's value; raises as `from_request`, and BadItem."""
        raise NotImplementedError

    def _make(self, arguments: Arguments, label: str) -> NewJob:
        return NewJob(
            id=self._options.job_id or new_id(),
            task=self._task,
            envelope=self._template.pack(
                encode(list(arguments.args), limit=self._limit, root="args"),
                encode(arguments.kwargs, limit=self._limit, root="kwargs"),
            ),
            options=self._options,
            label=label,
        )


class TaskMaker(Maker):
    """Make jobs that call a function; `function` None: it is not known here, and nothing is checked."""

    def __init__(self, task: str, function: Callable[..., Any] | None, options: JobOptions, limit: int) -> None:
        super().__init__(task, options, limit)
        self._function = function
        self._parameters = () if function is None else parameters_of(function)

    def from_request(self, request: Request) -> NewJob:
        """Return the job of a whole command line."""
        return self._call(parse_arguments(request.words, request.args_json))

    def from_value(self, value: Any) -> NewJob:
        """Return the job of a line: an object is keywords, an array arguments, else the one argument."""
        return self._call(spread(value))

    def _call(self, arguments: Arguments) -> NewJob:
        if self._function is not None:
            check_call(self._task, self._function, arguments)
        label = label_of(self._task, self._parameters, arguments.args, arguments.kwargs)
        return self._make(arguments, label)


class CommandMaker(Maker):
    """Make jobs that run a command, which a worker does only when it was allowed to."""

    def __init__(
        self, command: Sequence[str], options: JobOptions, limit: int, surroundings: Mapping[str, Any]
    ) -> None:
        super().__init__(COMMAND, options, limit)
        self._command = command
        self._how = {"limit": limit // SHARE, "tee": True, "check": True, "pack": True, **surroundings}

    def from_request(self, request: Request) -> NewJob:
        """Return the job of a whole command line."""
        return self._run(request.command)

    def from_value(self, value: Any) -> NewJob:
        """Return the job of a line: its value in the place of {}, or at the end."""
        return self._run(fill(self._command, value))

    def _run(self, argv: Sequence[str]) -> NewJob:
        return self._make(Arguments(args=(list(argv),), kwargs=self._how), _command_label(argv))


def maker_of(request: Request, settings: Settings, limit: int = MAX_BYTES) -> Maker:
    """Return what makes the jobs that a command line asks for.

    Raises:
        UnknownTask, TaskRefused, ConfigError: there is no such task, or an option makes no sense.
    """
    if request.target is None:
        return CommandMaker(request.command, _options(request, settings, None), limit, request.surroundings)
    with claimed_stdout():  # what a module prints when it is imported is no output of ours
        task, function = _task(request.target, unchecked=request.unchecked)
    return TaskMaker(task, function, _options(request, settings, function), limit)


def _options(request: Request, settings: Settings, function: Callable[..., Any] | None) -> JobOptions:
    return JobOptions().merged(**job_options(settings, function, request.options))


def _task(target: str, *, unchecked: bool) -> tuple[str, Callable[..., Any] | None]:
    """Return the name by which workers find the task, and its function where that is known here."""
    try:
        function = find_task(target)
    except UnknownTask as exc:
        if not unchecked:
            raise UnknownTask(f"{exc} (--unchecked submits it by name, for workers that have it)") from None
        if NAME.fullmatch(target) is None:
            raise ConfigError(f"{target!r} does not name a task: write module:function") from None
        return target, None
    return name_of(function), function


def _command_label(argv: Sequence[str]) -> str:
    """Return a command as one would type it, without what looks like a secret."""
    shown = shlex.join(SECRET.sub(r"\1***", safe_url(word)) for word in argv)
    return shown if len(shown) <= LABEL else shown[: LABEL - 3] + "..."

"""Jobs for a store, built from the arguments of `taskq submit`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from taskq.allowlist import COMMAND
from taskq.cli.arguments import Arguments, check_call, find_task, parse_arguments, spread
from taskq.cli.options import job_options
from taskq.cli.streams import claimed_stdout
from taskq.codec import encode
from taskq.envelope import CALL, MAX_BYTES, Template, command_label, label_of, parameters_of
from taskq.errors import ConfigError, UnknownTask
from taskq.ids import new_id
from taskq.options import JobOptions
from taskq.redact import MASK, is_secret
from taskq.shell import fill
from taskq.store import NewJob
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskq.cli.options import Request
    from taskq.config import Settings
    from taskq.store import Store

__all__ = ["JobBuilder", "job_builder_of"]

#: The share of a result that the output of a command may take, compressed, for each of its streams; a part of it is
#: there as text too.
SHARE = 4

#: Characters of the shortest secret that is looked for in a command.
SECRET = 4

#: How a task is named that is not looked for here.
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class JobBuilder:
    """Make jobs of one task with the same options. `store`: what they are for; None: no store."""

    def __init__(self, task: str, options: JobOptions, store: Store | None) -> None:
        self._task = task
        self._options = options
        self._limit = MAX_BYTES if store is None else store.max_bytes
        self._full = store is None or store.labels == "full"
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

    def _build(self, arguments: Arguments, label: str) -> NewJob:
        return NewJob(
            id=self._options.job_id or new_id(),
            task=self._task,
            envelope=self._template.pack(
                encode(list(arguments.args), limit=self._limit, root="args"),
                encode(arguments.kwargs, limit=self._limit, root="kwargs"),
                limit=self._limit,
            ),
            options=self._options,
            label=self._options.label or label,
        )


class TaskJobBuilder(JobBuilder):
    """Make jobs that call a function; `function` None: it is not known here, and nothing is checked."""

    def __init__(
        self, task: str, function: Callable[..., Any] | None, options: JobOptions, store: Store | None
    ) -> None:
        super().__init__(task, options, store)
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
        label = label_of(self._task, self._parameters, arguments.args, arguments.kwargs, full=self._full)
        return self._build(arguments, label)


class CommandJobBuilder(JobBuilder):
    """Make jobs that run a command, which a worker does only when it was allowed to."""

    def __init__(
        self, command: Sequence[str], options: JobOptions, store: Store | None, command_options: Mapping[str, Any]
    ) -> None:
        super().__init__(COMMAND, options, store)
        self._command = command
        self._how = {"limit": self._limit // SHARE, "tee": True, "check": True, "pack": True, **command_options}

    def from_request(self, request: Request) -> NewJob:
        """Return the job of a whole command line."""
        return self._run(request.command)

    def from_value(self, value: Any) -> NewJob:
        """Return the job of a line: its value in the place of {}, or at the end."""
        return self._run(fill(self._command, value))

    def _run(self, argv: Sequence[str]) -> NewJob:
        return self._build(
            Arguments(args=(list(argv),), kwargs=self._how), command_label(self._shown(argv), full=self._full)
        )

    def _shown(self, argv: Sequence[str]) -> list[str]:
        """Return the command without the secrets that --env gives it, wherever they stand in it."""
        env: Mapping[str, str] = self._how.get("env", {})
        secrets = [value for name, value in env.items() if is_secret(name) and len(value) >= SECRET]
        words = list(argv)
        for secret in secrets:
            words = [word.replace(secret, MASK) for word in words]
        return words


def job_builder_of(request: Request, settings: Settings, store: Store | None = None) -> JobBuilder:
    """Return what makes the jobs that a command line asks for.

    Raises:
        UnknownTask, TaskRefused, ConfigError: there is no such task, or an option makes no sense.
    """
    if request.target is None:
        return CommandJobBuilder(request.command, _options(request, settings, None), store, request.command_options)
    with claimed_stdout():  # what a module prints when it is imported is no output of ours
        task, function = _task(request.target, unchecked=request.unchecked)
    return TaskJobBuilder(task, function, _options(request, settings, function), store)


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

"""A function as the submits of a durable executor need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskq.envelope import CALL, Template
from taskq.errors import TaskRefused
from taskq.executors.pool.functions import unwrap_callable
from taskq.label import parameters_of
from taskq.names import main_module
from taskq.tasks import name_of, options_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.options import JobOptions

__all__ = ["Task"]


class Task:
    """A function as submits need it: its name, what is bound to it, and the envelopes of its jobs."""

    __slots__ = ("_last", "_template", "args", "kwargs", "name", "options", "parameters")

    def __init__(self, fn: Callable[..., Any]) -> None:
        plain, self.args, self.kwargs = unwrap_callable(fn)
        self.name = name_of(plain)
        if self.name.startswith("__main__:"):
            self.name = _imported_name(self.name)
        self.options = options_of(plain)
        self.parameters = parameters_of(plain)
        self._last: JobOptions | None = None
        self._template: Template | None = None

    def template(self, options: JobOptions) -> Template:
        """Return what makes the envelopes of jobs with these options; mostly they are those of the last one."""
        if self._template is None or options is not self._last:
            self._last, self._template = options, Template(CALL, self.name, options)
        return self._template


def _imported_name(name: str) -> str:
    """Return the name that a function of the main program has in workers, which import that file as a module.

    Raises:
        TaskRefused: no import would find it.
    """
    module = main_module()
    if not module:
        raise TaskRefused(
            f"{name} lives in the program that was started, and no `import` here finds that file: move it to a module "
            "and import it from there"
        )
    return f"{module}:{name.partition(':')[2]}"

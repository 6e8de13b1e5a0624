"""Which functions a worker runs: those that it was told to trust, and no name that a message makes up."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from taskq import task
from taskq.errors import ConfigError, UnknownTask
from taskq.trust import COMMAND, Trust, from_environment
from tests.sample_tasks import Arithmetic, decorated, square

TASKS = "tests.sample_tasks"


def test_function_of_a_trusted_module() -> None:
    """What a trusted module defines runs: functions, static and class methods, classes."""
    trust = Trust([TASKS])
    assert trust.find(f"{TASKS}:square") is square
    assert trust.find(f"{TASKS}:square") is square
    assert trust.find(f"{TASKS}:Arithmetic.doubled")(4) == 8
    assert trust.find(f"{TASKS}:Arithmetic.tripled")(4) == 12
    assert trust.find(f"{TASKS}:Arithmetic") is Arithmetic


def test_registered_task_of_any_imported_module() -> None:
    """A function that `@task` was put on runs without its module being named; its neighbours do not."""
    assert Trust().find(f"{TASKS}:decorated") is decorated
    with pytest.raises(UnknownTask):
        Trust().find(f"{TASKS}:square")


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        f"{TASKS}:os.system",
        f"{TASKS}:subprocess.run",
        f"{TASKS}:Path",
        f"{TASKS}:task",
        f"{TASKS}:square.__globals__",
        f"{TASKS}:square.__call__",
        f"{TASKS}:Arithmetic.__subclasses__",
        f"{TASKS}:Arithmetic.__init__",
        f"{TASKS}:__class__",
        f"{TASKS}:no_such_function",
        f"{TASKS}:",
        ":square",
        "",
        "square",
        "tests.sample_tasks.square",
        "a b:c",
        f"{TASKS}:settings",
        f"{TASKS}:lambda_at_top",
        "no_such_module:f",
    ],
)
def test_nothing_else(name: str) -> None:
    """Whatever else a message names is an UnknownTask: nothing is imported, nothing is reached by attributes."""
    before = set(sys.modules)
    with pytest.raises(UnknownTask):
        Trust([TASKS]).find(name)
    assert "no_such_module" not in set(sys.modules) - before


def test_nothing_is_imported_for_a_message() -> None:
    """A module that exists but was not named is not imported."""
    sys.modules.pop("this", None)
    with pytest.raises(UnknownTask, match="start it with --import this"):
        Trust([TASKS]).find("this:anything")
    assert "this" not in sys.modules


def test_the_refusal_says_the_cure() -> None:
    """The error names the task, what the worker trusts, and the flag to give."""
    with pytest.raises(
        UnknownTask, match=r"does not know the task shop:sell \(it trusts tests.sample_tasks\).*--import shop"
    ):
        Trust([TASKS]).find("shop:sell")
    with pytest.raises(UnknownTask, match="no --import"):
        Trust().find("shop:sell")


def test_commands_only_where_allowed() -> None:
    """Shell commands run only where the operator lets them, also when their module was named."""
    for trust in (Trust(), Trust(["taskq.shell"])):
        with pytest.raises(UnknownTask, match="--allow-commands"):
            trust.find(COMMAND)
    assert Trust(commands=True).find(COMMAND).__name__ == "run_command"


def test_module_that_cannot_be_imported() -> None:
    """A wrong --import is said at once."""
    with pytest.raises(ConfigError, match="--import no_such_module failed"):
        Trust(["no_such_module"])


def test_modules_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that nobody told anything, TASKQ_IMPORT names the modules."""
    monkeypatch.setenv("TASKQ_IMPORT", f" {TASKS}, ,math")
    trust = from_environment()
    assert trust.find(f"{TASKS}:square") is square
    assert trust.find("math:gcd")(12, 18) == 6
    monkeypatch.delenv("TASKQ_IMPORT")
    with pytest.raises(UnknownTask):
        from_environment().find("math:gcd")


def test_task_that_was_defined_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered name that now leads to another function is not run."""
    module = ModuleType("twice_defined")
    monkeypatch.setitem(sys.modules, "twice_defined", module)

    def sell() -> None:
        """Sell."""

    sell.__module__, sell.__qualname__ = "twice_defined", "sell"
    module.sell = sell  # type: ignore[attr-defined]
    task(sell)
    assert Trust().find("twice_defined:sell") is sell
    module.sell = square  # type: ignore[attr-defined]
    with pytest.raises(UnknownTask):
        Trust().find("twice_defined:sell")

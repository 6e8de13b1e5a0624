"""Which functions a worker runs: those that it was told to trust, and no name that a message makes up."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from taskq import task
from taskq.allowlist import COMMAND, AllowList, from_environment, opens
from taskq.errors import ConfigError, UnknownTask
from tests.sample_tasks import Arithmetic, decorated, square
from tests.sample_trust import Handler

if TYPE_CHECKING:
    from pathlib import Path

TASKS = "tests.sample_tasks"


def test_function_of_a_trusted_module() -> None:
    """What a trusted module defines runs: its functions, also those of its classes, and static methods."""
    allowed = AllowList([TASKS])
    assert allowed.find(f"{TASKS}:square") is square
    assert allowed.find(f"{TASKS}:square") is square
    assert allowed.find(f"{TASKS}:Arithmetic.doubled")(4) == 8
    assert allowed.find(f"{TASKS}:Arithmetic.shifted") is Arithmetic.shifted


def test_registered_task_of_any_imported_module() -> None:
    """A function that `@task` was put on runs without its module being named; its neighbours do not."""
    assert AllowList().find(f"{TASKS}:decorated") is decorated
    with pytest.raises(UnknownTask):
        AllowList().find(f"{TASKS}:square")


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
        f"{TASKS}:Arithmetic",
        f"{TASKS}:Arithmetic.tripled",
        f"{TASKS}:Arithmetic.mro",
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
        AllowList([TASKS]).find(name)
    assert "no_such_module" not in set(sys.modules) - before


def test_modules_in_c() -> None:
    """Only math and cmath lend functions, and none that a large number keeps busy for ever; others are named."""
    allowed = AllowList(["math", "cmath", "pickle", "os", "itertools", "builtins", "posix", "_pickle", "_ctypes"])
    assert allowed.find("math:sqrt")(9) == 3
    assert allowed.find("cmath:phase")(1) == 0
    for name in (
        *("math:factorial", "math:comb", "math:perm", "math:prod", "math:lcm"),
        *("pickle:loads", "os:system", "itertools:chain", "math:pi.hex", "math:__loader__.load_module"),
        *("builtins:eval", "builtins:exec", "builtins:abs", "posix:system", "_pickle:loads", "_ctypes:dlopen"),
        "builtins:__import__",
    ):
        with pytest.raises(UnknownTask) as caught:
            allowed.find(name)
        if name.startswith(("builtins:e", "posix", "_", "math:f", "math:c")):
            assert f"start the worker with --import {name}" in str(caught.value)
    assert AllowList(["builtins:abs"]).find("builtins:abs")(-1) == 1
    assert AllowList(["math:sqrt"]).find("math:sqrt")(9) == 3


def test_nothing_is_imported_for_a_message() -> None:
    """A module that exists but was not named is not imported."""
    sys.modules.pop("this", None)
    with pytest.raises(UnknownTask, match="start it with --import this"):
        AllowList([TASKS]).find("this:anything")
    assert "this" not in sys.modules


def test_the_refusal_says_the_cure() -> None:
    """The error names the task, what the worker trusts, and the flag to give."""
    with pytest.raises(
        UnknownTask, match=r"does not know the task shop:sell \(it trusts tests.sample_tasks\).*--import shop"
    ):
        AllowList([TASKS]).find("shop:sell")
    with pytest.raises(UnknownTask, match="no --import"):
        AllowList().find("shop:sell")


def test_the_flag_that_opens_a_task() -> None:
    """It is the module's where that is enough, and the function's own where it is not."""
    assert opens(COMMAND) == "--allow-commands"
    assert opens(f"{TASKS}:square") == f"--import {TASKS}"
    assert opens("shop.images:thumbnail") == "--import shop.images"
    assert opens("math:factorial") == "--import math:factorial"
    assert opens("x;reboot:y.z") == "--import x;reboot"


def test_commands_only_where_allowed() -> None:
    """Shell commands run only where the operator lets them, also when their module was named."""
    for allowed in (AllowList(), AllowList(["taskq.shell"])):
        with pytest.raises(UnknownTask, match="--allow-commands"):
            allowed.find(COMMAND)
    assert AllowList(commands=True).find(COMMAND).__name__ == "run_command"


def test_module_that_cannot_be_imported() -> None:
    """A wrong --import is said at once."""
    with pytest.raises(ConfigError, match="--import no_such_module failed"):
        AllowList(["no_such_module"])


def test_modules_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that nobody told anything, TASKQ_IMPORT names the modules."""
    monkeypatch.setenv("TASKQ_IMPORT", f" {TASKS}, ,math:gcd")
    allowed = from_environment()
    assert allowed.find(f"{TASKS}:square") is square
    assert allowed.find("math:gcd")(12, 18) == 6
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
    assert AllowList().find("twice_defined:sell") is sell
    module.sell = square  # type: ignore[attr-defined]
    with pytest.raises(UnknownTask):
        AllowList().find("twice_defined:sell")


SAMPLE = "tests.sample_trust"


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("Handler.made", (), "Handler"),
        ("Handler.inherited", (), "Handler"),
        ("Handler.__call__", (Handler(),), "called"),
        ("Handler.method", (Handler(),), "Handler"),
        ("cached", (), "cached"),
        ("lent", (), "lent"),
        ("spread", ("b",), "a/b"),
        ("_own", (), "private"),
        ("Handler", (), None),
    ],
)
def test_what_is_opened_by_name(name: str, args: tuple[Any, ...], value: Any) -> None:
    """What an operator names runs, whatever it is, and opens nothing else; the refusal before tells the line to add."""
    with pytest.raises(UnknownTask, match=rf"--import {SAMPLE}:{name}$"):
        AllowList([SAMPLE]).find(f"{SAMPLE}:{name}")
    allowed = AllowList([f"{SAMPLE}:{name}"])
    found = allowed.find(f"{SAMPLE}:{name}")(*args)
    assert value is None or found == value
    with pytest.raises(UnknownTask, match=f"--import {SAMPLE}:undecorated"):
        allowed.find(f"{SAMPLE}:undecorated")


def test_tasks_need_not_be_plain() -> None:
    """`@task` opens what it is put on: a class method, a private function."""
    assert AllowList().find(f"{SAMPLE}:Handler.meant")() == "Handler"
    assert AllowList().find(f"{SAMPLE}:_meant")() == "a task, whatever it is called"


def test_name_that_is_not_there() -> None:
    """An operator's mistake in a name is said at once, with what may be meant."""
    with pytest.raises(ConfigError, match=rf"--import {SAMPLE}:cachd failed: .*did you mean cached"):
        AllowList([f"{SAMPLE}:cachd"])
    with pytest.raises(ConfigError, match=rf"a function is named as {SAMPLE}:lent"):
        AllowList([f"{SAMPLE}.lent"])


def test_modules_are_imported_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator names first is imported first: it may prepare what the next one needs."""
    monkeypatch.syspath_prepend(tmp_path)
    names = ["zeta_first", "alpha_second", "mid_third:act"]
    for name in names:
        module = name.partition(":")[0]
        code = f"import sys\nsys.order_of_imports.append({module!r})\ndef act(): pass\n"
        (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.setattr(sys, "order_of_imports", [], raising=False)
    AllowList(names)
    assert sys.order_of_imports == ["zeta_first", "alpha_second", "mid_third"]  # type: ignore[attr-defined]
    for name in names:
        sys.modules.pop(name.partition(":")[0])

"""Tasks: the decorator, the register, names, and the way back from names."""

from __future__ import annotations

import functools
import math
import operator
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from taskq import tasks
from taskq.errors import ConfigError, TaskRefused, UnknownTask
from taskq.options import JobOptions
from taskq.retry import Retry
from taskq.tasks import name_of, options_of, registered, resolve, task
from tests.unit import tasks_for_resolve as sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HERE = "tests.unit.tasks_for_resolve"


@pytest.fixture
def clean_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register tasks without a trace."""
    monkeypatch.setattr(tasks, "registry", dict(tasks.registry))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give a function that writes a module, in a folder on the path and forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())

    def write(name: str, source: str) -> None:
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    return write


def test_a_task_is_still_the_same_function() -> None:
    """The decorator returns the function it was given, ready to be called as before."""

    def plain() -> None: ...

    plain.__qualname__ = "plain"
    assert task(plain) is plain
    assert sample.bare(1) == 2
    assert sample.with_options(number=1) == 3


def test_options_of_a_task() -> None:
    """The options of @task are those of the function; a bare task and a plain function have the defaults."""
    assert options_of(sample.with_options) == JobOptions(timeout=60, retry=Retry(3), queue="mail")
    assert options_of(sample.bare) == JobOptions()
    assert options_of(sample.thumbnail) == JobOptions()
    assert options_of(len) == JobOptions()


def test_options_reach_through_wrappers() -> None:
    """Partials, methods and wrappers that keep the function's attributes have its options."""
    assert options_of(functools.partial(functools.partial(sample.with_options, 1))).queue == "mail"
    assert options_of(sample.wrapped).timeout == 5
    assert options_of(sample.Shop.static_outside).priority == 1
    assert options_of(sample.Shop.static_inside).priority == 2
    assert options_of(sample.Shop.of_class).priority == 3


def test_tasks_are_registered_by_name() -> None:
    """Functions under @task stand in the register, others do not, and nobody can write to it."""
    register = registered()
    assert register[f"{HERE}:with_options"] is sample.with_options
    assert f"{HERE}:Shop.of_class" in register
    assert f"{HERE}:thumbnail" not in register
    with pytest.raises(TypeError):
        register["x"] = len  # type: ignore[index]


def test_bad_options_are_refused_at_the_decorator() -> None:
    """A mistake in the options shows where they are written."""
    with pytest.raises(ConfigError, match="did you mean timeout"):
        task(time_out=5)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="timeout=-1"):
        task(timeout=-1)


def test_options_by_position_are_refused() -> None:
    """`@task(60)` says that options have names."""
    with pytest.raises(TaskRefused, match="give options by name"):
        task(60)  # type: ignore[call-overload]


@pytest.mark.usefixtures("clean_register")
@pytest.mark.parametrize("function", [sample.nameless, sample.make_closure(), functools.partial(len), len])
def test_what_cannot_be_a_task(function: Any) -> None:
    """Functions that nobody could import, or that cannot hold options, are refused and not registered."""
    before = dict(registered())
    with pytest.raises(TaskRefused):
        task(function)
    assert registered() == before


NAMED = [
    (sample.thumbnail, f"{HERE}:thumbnail"),
    (sample.bare, f"{HERE}:bare"),
    (sample.wrapped, f"{HERE}:wrapped"),
    (sample.Shop, f"{HERE}:Shop"),
    (sample.Shop.static_outside, f"{HERE}:Shop.static_outside"),
    (sample.Shop.static_inside, f"{HERE}:Shop.static_inside"),
    (sample.Shop.of_class, f"{HERE}:Shop.of_class"),
    (sample.Branch.of_class, f"{HERE}:Branch.of_class"),
    (sample.Shop.method, f"{HERE}:Shop.method"),
    (len, "builtins:len"),
    (int, "builtins:int"),
    (str.upper, "builtins:str.upper"),
    (dict.fromkeys, "builtins:dict.fromkeys"),
    (math.sqrt, "math:sqrt"),
    (textwrap.dedent, "textwrap:dedent"),
]


@pytest.mark.parametrize(("function", "name"), NAMED, ids=[name for _, name in NAMED])
def test_name_there_and_back(function: Callable[..., Any], name: str) -> None:
    """A function's name leads back to the same function."""
    assert name_of(function) == name
    assert resolve(name) == function


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (sample.nameless, "a lambda .* write it as a def"),
        (sample.make_closure(), "is defined inside a function.* pass what it needs as arguments"),
        (functools.partial(sample.thumbnail, "a"), "submit its function with the same arguments"),
        (sample.shop.method, "submit Shop.method with the object as its first argument"),
        ("abc".upper, "submit str.upper with the object"),
        (sample.shop, "a Shop object has no name"),
        (operator.itemgetter(1), "a itemgetter object has no name"),
    ],
)
def test_callables_without_a_name(function: Callable[..., Any], why: str) -> None:
    """What other processes could not import is refused with the reason and the cure."""
    with pytest.raises(TaskRefused, match=why):
        name_of(function)


def test_names_that_lead_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function whose name now means another, or nothing, is refused: the child would run the wrong one."""
    original = sample.thumbnail
    monkeypatch.setattr(sample, "thumbnail", sample.bare)
    with pytest.raises(TaskRefused, match="now names another object"):
        name_of(original)
    monkeypatch.delattr(sample, "thumbnail")
    with pytest.raises(TaskRefused, match="is not found under its name"):
        name_of(original)


@pytest.mark.parametrize("name", ["os.path.join", "json.dumps", f"{HERE}.Shop.of_class", "os.path:join"])
def test_dotted_names(name: str) -> None:
    """A name with dots only is taken apart where the module ends."""
    assert callable(resolve(name))


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("", ConfigError, "does not name a task: write module:function"),
        ("thumbnail", ConfigError, "does not name a task"),
        ("a:b:c", ConfigError, "does not name a task"),
        (":f", ConfigError, "does not name a task"),
        ("math:", ConfigError, "does not name a task"),
        (".math:sqrt", ConfigError, "does not name a task"),
        ("a-b.c", ConfigError, "does not name a task"),
        ("jso:dumps", UnknownTask, "there is no module 'jso'; did you mean .*json"),
        ("json.decode:x", UnknownTask, "there is no module 'json.decode'; did you mean decoder"),
        ("jso.dumps", UnknownTask, "there is no module 'jso'"),
        ("json:dmps", UnknownTask, "json has no 'dmps'; did you mean dumps"),
        ("json.dmps", UnknownTask, "json has no 'dmps'; did you mean dumps"),
        (f"{HERE}:Shop.of_clas", UnknownTask, "Shop has no 'of_clas'; did you mean of_class"),
        (f"{HERE}:NUMBER", UnknownTask, "is not callable: it is a int"),
        ("math.sqrt:x", UnknownTask, "there is no module 'math.sqrt'"),
    ],
)
def test_names_that_lead_nowhere(name: str, kind: type[Exception], text: str) -> None:
    """A wrong name is refused in one clear sentence, with near misses."""
    with pytest.raises(kind, match=text) as refusal:
        resolve(name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import does_not_exist_anywhere", "ModuleNotFoundError: No module named 'does_not_exist_anywhere'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_modules_that_cannot_be_imported(modules: Callable[[str, str], None], source: str, text: str) -> None:
    """A module that is there but fails is told apart from one that is not there."""
    modules("taskq_broken_sample", source)
    with pytest.raises(ConfigError, match=f"importing taskq_broken_sample failed: {text}"):
        resolve("taskq_broken_sample:f")
    with pytest.raises(ConfigError, match="importing taskq_broken_sample failed"):
        resolve("taskq_broken_sample.f")


def test_resolve_imports_packages(modules: Callable[[str, str], None]) -> None:
    """A function deep in a package that nobody imported yet is found by either form of its name."""
    modules("taskq_package_sample.__init__", "")
    modules("taskq_package_sample.inner", "def f():\n    return 5\n")
    assert resolve("taskq_package_sample.inner:f")() == 5
    assert resolve("taskq_package_sample.inner.f")() == 5

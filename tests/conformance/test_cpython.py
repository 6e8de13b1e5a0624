"""CPython's own tests for executors, run against TaskQueue, where the interpreter ships them.

    test.test_concurrent_futures             one module (3.11.0 to 3.11.5)
    test.test_concurrent_futures.executor    a package (later versions): the mixins stand in several modules
        + a TaskQueue in `self.executor`, as unittest's mixins ask for it
        - the tests below that look into private parts of the standard executors

Each excluded test is reported as skipped, with its reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import multiprocessing
import time
import unittest
from typing import TYPE_CHECKING, Any

import pytest

from tests.variants import VARIANTS, Variant
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from taskq import TaskQueue

PACKAGE = "test.test_concurrent_futures"

#: The module of the package in which each mixin stands.
MIXINS = {
    "ExecutorTest": "executor",
    "ExecutorShutdownTest": "test_shutdown",
    "AsCompletedTests": "test_as_completed",
    "WaitTests": "test_wait",
    "ProcessPoolExecutorTest": "test_process_pool",
    "InitializerMixin": "test_init",
}

PRIVATE = "looks into private attributes of ProcessPoolExecutor"
OWN_SCRIPT = "its script imports the executor by its name from concurrent.futures; ours: test_programs.py"

#: Tests that cannot apply, and why.
EXCLUDED = {
    "test_interpreter_shutdown": OWN_SCRIPT,
    "test_submit_after_interpreter_shutdown": OWN_SCRIPT,
    "test_hang_gh83386": OWN_SCRIPT,
    "test_killed_child": "demands that one dead child breaks the pool; ours goes on (tests/faults)",
    "test_traceback": "demands the private class _RemoteTraceback as cause; ours: test_errors.py",
    "test_saturation": PRIVATE,
    "test_idle_process_reuse_one": PRIVATE,
    "test_idle_process_reuse_multiple": PRIVATE,
    "test_max_tasks_per_child": PRIVATE + "; ours: test_settings.py",
    "test_max_tasks_per_child_defaults_to_spawn_context": PRIVATE,
    "test_python_finalization_error": "replaces private functions of threading",
    "test_max_workers_too_large": "Windows only",
}


OBJECTS = "sends objects that only pickle could carry"
SETTINGS = "the setting belongs to the workers there; tests/conformance/test_durable.py"

#: Tests that cannot apply to executors over a store either, and why.
EXCLUDED_IN_STORES = {
    "test_no_stale_references": OBJECTS,
    "test_free_reference": OBJECTS,
    "test_ressources_gced_in_workers": OBJECTS,
    "test_max_workers_negative": SETTINGS,
    "test_max_tasks_early_shutdown": SETTINGS,
    "test_initializer": SETTINGS,
}


def locate(package: str = PACKAGE) -> dict[str, Any]:
    """Return the mixins that this interpreter ships, by name; none where its tests are left out."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return {}
    if found is None:
        return {}
    in_package = found.submodule_search_locations is not None
    modules = {name: f"{package}.{module}" if in_package else package for name, module in MIXINS.items()}
    shipped = {name: getattr(importlib.import_module(module), name, None) for name, module in modules.items()}
    mixins = {name: mixin for name, mixin in shipped.items() if mixin is not None}
    return {name: mixin for name, mixin in mixins.items() if not _has_subclass(mixin, mixins.values())}


def _has_subclass(mixin: Any, mixins: Iterable[Any]) -> bool:
    """Return whether another mixin has all the tests of this one, and more."""
    return any(other is not mixin and issubclass(other, mixin) for other in mixins)


def modules_of_tasks() -> tuple[str, ...]:
    """Return what the workers of durable executors are told to trust: the modules whose functions these tests submit.

    Functions that begin with `_` have to be named.
    """
    found = {mixin.__module__ for mixin in locate().values()}
    helpers = [f"{PACKAGE}.{name}" for name in ("util", "executor") if f"{PACKAGE}.test_process_pool" in found]
    modules = (*sorted(found), *helpers)
    return (*modules, *(name for module in modules for name in _private_functions(module)))


def _private_functions(name: str) -> Iterator[str]:
    """Yield the names of a module's own functions that begin with `_`."""
    for word, found in vars(importlib.import_module(name)).items():
        if word.startswith("_") and inspect.isfunction(found) and found.__module__ == name:
            yield f"{name}:{word}"


WORKER_IMPORTS = modules_of_tasks()


class WithQueue(unittest.TestCase):
    """Give CPython's mixins what they ask for: `self.executor`, `self.executor_type`, `self.get_context()`."""

    worker_count = 2
    row = VARIANTS[0]
    variant: Variant
    executor: TaskQueue | None = None

    @pytest.fixture(autouse=True)
    def take_place(self, open_variant: Callable[[Variant], Variant]) -> None:
        """Have the stores and workers that the variant needs."""
        self.variant = open_variant(self.row)

    def setUp(self) -> None:
        """Open the queue, unless the mixin does so itself, with settings of its own."""
        super().setUp()
        if all(base.__name__ != "ExecutorMixin" for base in type(self).__mro__):
            self.executor = self.executor_type(max_workers=self.worker_count)
            self._prime(self.executor)

    def _prime(self, queue: TaskQueue) -> None:
        """Have all processes ready, as CPython's own mixin did up to 3.8: some tests cancel what has not started."""
        for job in [queue.submit(time.sleep, 0.02) for _ in range(2 * self.worker_count)]:
            job.result(timeout=PATIENCE)

    def tearDown(self) -> None:
        """Close it, unless the mixin has done so."""
        if self.executor is not None:
            self.executor.shutdown(wait=True)
            self.executor = None
        super().tearDown()

    def executor_type(self, max_workers: int | None = None, mp_context: object = None, **settings: Any) -> TaskQueue:
        """Open a queue, called as ProcessPoolExecutor is."""
        if max_workers is not None:
            settings["max_workers"] = max_workers
        return self.variant.open(**settings)

    def get_context(self) -> Any:
        """Return the multiprocessing context of this variant."""
        return multiprocessing.get_context(str(self.variant.settings.get("start_method", "spawn")))


def excluding(mixin: Any, row: Variant) -> dict[str, Any]:
    """Return stand-ins for the excluded tests of a mixin, which say why they are skipped."""
    excluded = EXCLUDED if "pickle" in row.capabilities else {**EXCLUDED, **EXCLUDED_IN_STORES}
    return {
        name: unittest.skip(reason)(getattr(mixin, name)) for name, reason in excluded.items() if hasattr(mixin, name)
    }


for _name, _mixin in locate().items():
    for _variant in VARIANTS:
        _title = f"Test{_name}_{_variant.name.replace('-', '_')}"
        globals()[_title] = type(
            _title, (_mixin, WithQueue), {"row": _variant, "__module__": __name__, **excluding(_mixin, _variant)}
        )


def test_cpython_tests_are_there() -> None:
    """CPython's tests were found and run; an interpreter without them says so here."""
    found = locate()
    if not found:
        pytest.skip(f"this Python ships without {PACKAGE}: CPython's own executor tests cannot be run")
    assert {"ProcessPoolExecutorTest", "ExecutorShutdownTest", "AsCompletedTests", "WaitTests"} <= found.keys()


@pytest.mark.parametrize("layout", ["module", "package"])
def test_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """The mixins are found in one module (as up to 3.11.5) and in a package (later), a base only where it is alone."""
    name = f"executor_tests_in_a_{layout}"
    sources = {
        "executor": "class ExecutorTest: pass",
        "test_process_pool": "from .executor import ExecutorTest\nclass ProcessPoolExecutorTest(ExecutorTest): pass",
        "test_shutdown": "class ExecutorShutdownTest: pass",
        "test_as_completed": "class AsCompletedTests: pass",
        "test_wait": "class WaitTests: pass",
        "test_init": "unlike_the_others = True",
    }
    if layout == "package":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        for module, source in sources.items():
            (tmp_path / name / f"{module}.py").write_text(source)
    else:
        (tmp_path / f"{name}.py").write_text("\n".join(sources.values()).replace("from .executor", "# from .executor"))
    monkeypatch.syspath_prepend(tmp_path)
    found = locate(name)
    assert found.keys() == {"ProcessPoolExecutorTest", "ExecutorShutdownTest", "AsCompletedTests", "WaitTests"}
    assert locate("no_such_package.tests") == {}

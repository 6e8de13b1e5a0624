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
import multiprocessing
import unittest
from typing import Any

import pytest

from taskq import TaskQueue
from tests.variants import VARIANTS

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


def locate() -> dict[str, Any]:
    """Return the mixins that this interpreter ships, by name; none where its tests are left out."""
    try:
        found = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        return {}
    if found is None:
        return {}
    in_package = found.submodule_search_locations is not None
    modules = {name: f"{PACKAGE}.{module}" if in_package else PACKAGE for name, module in MIXINS.items()}
    shipped = {name: getattr(importlib.import_module(module), name, None) for name, module in modules.items()}
    return {name: mixin for name, mixin in shipped.items() if mixin is not None}


class WithQueue(unittest.TestCase):
    """Give CPython's mixins what they ask for: `self.executor`, `self.executor_type`, `self.get_context()`."""

    worker_count = 2
    variant = VARIANTS[0]
    executor: TaskQueue | None = None

    def setUp(self) -> None:
        """Open the queue, unless the mixin does so itself, with settings of its own."""
        super().setUp()
        if all(base.__name__ != "ExecutorMixin" for base in type(self).__mro__):
            self.executor = self.executor_type(max_workers=self.worker_count)

    def tearDown(self) -> None:
        """Close it, unless the mixin has done so."""
        if self.executor is not None:
            self.executor.shutdown(wait=True)
            self.executor = None
        super().tearDown()

    def executor_type(self, max_workers: int | None = None, mp_context: object = None, **settings: Any) -> TaskQueue:
        """Open a queue, called as ProcessPoolExecutor is."""
        chosen: dict[str, Any] = {**self.variant.settings, **settings}
        return TaskQueue(self.variant.url, max_workers=max_workers, **chosen)

    def get_context(self) -> Any:
        """Return the multiprocessing context of this variant."""
        return multiprocessing.get_context(str(self.variant.settings.get("start_method", "spawn")))


def excluding(mixin: Any) -> dict[str, Any]:
    """Return stand-ins for the excluded tests of a mixin, which say why they are skipped."""
    return {
        name: unittest.skip(reason)(getattr(mixin, name)) for name, reason in EXCLUDED.items() if hasattr(mixin, name)
    }


for _name, _mixin in locate().items():
    for _variant in VARIANTS:
        _title = f"Test{_name}_{_variant.name.replace('-', '_')}"
        globals()[_title] = type(
            _title, (_mixin, WithQueue), {"variant": _variant, "__module__": __name__, **excluding(_mixin)}
        )


def test_cpython_tests_are_there() -> None:
    """CPython's tests were found and run; an interpreter without them says so here."""
    found = locate()
    if not found:
        pytest.skip(f"this Python ships without {PACKAGE}: CPython's own executor tests cannot be run")
    assert {"ExecutorTest", "ExecutorShutdownTest", "AsCompletedTests", "WaitTests"} <= found.keys()

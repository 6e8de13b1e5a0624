"""`import taskq` stays light: it loads nothing that a program may not need, and so costs little time."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.project.commands import ROOT, output_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

#: Modules that `import taskq` must not load; each costs milliseconds, or is for one executor or the CLI.
TOO_HEAVY = (
    "asyncio",
    "click",
    "multiprocessing",
    "numpy",
    "redis",
    "rich",
    "rq",
    "sqlite3",
    "structlog",
    "taskq.executors",
    "tomllib",
)


def modules_after(statement: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    return set(output_of([sys.executable, "-c", program], ROOT).split())


def test_import_loads_no_heavy_module() -> None:
    """A fresh interpreter that imports taskq has loaded none of the modules that come only when needed."""
    loaded = modules_after("import taskq") - modules_after("pass")
    assert loaded.isdisjoint(TOO_HEAVY), sorted(loaded.intersection(TOO_HEAVY))


def test_unused_queue_starts_nothing_of_the_cli() -> None:
    """A program that runs jobs on this machine never pays for the command line's libraries."""
    program = "import taskq\nwith taskq.TaskQueue(processes=1) as queue: queue.submit(abs, -1).result()"
    assert modules_after(program).isdisjoint({"click", "rich", "structlog", "asyncio", "sqlite3"})


def test_import_time_is_measured(record_testsuite_property: Callable[[str, object], None]) -> None:
    """The import's time can be read off: it is recorded, not judged, for a loaded machine would decide."""
    done = run([sys.executable, "-X", "importtime", "-c", "import taskq"], ROOT)
    found = re.search(r"\| +(\d+) \| taskq$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    record_testsuite_property("import_taskq_ms", int(found[1]) / 1000)


@pytest.mark.parametrize("module", ["taskq", "taskq.cli", "taskq.executors"])
def test_each_package_imports_by_itself(module: str) -> None:
    """Each package can be the first that a program imports: no cycle works only from one side."""
    subprocess.run([sys.executable, "-W", "error", "-c", f"import {module}"], cwd=ROOT, check=True)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_left_as_it_was(enabled: bool) -> None:
    """The imports of taskq and of an executor, a missing one's too, leave the garbage collector as they found it."""
    program = (
        f"import gc\n{'gc.enable()' if enabled else 'gc.disable()'}\n"
        "import taskq\nprint(gc.isenabled())\n"
        "with taskq.TaskQueue('local://', processes=1) as queue:\n"
        "    print(gc.isenabled(), queue.submit(gc.isenabled).result())\n"
        "sys_modules = __import__('sys').modules\nsys_modules['redis'] = None\n"
        "try: taskq.TaskQueue('redis://127.0.0.1:1')\nexcept taskq.MissingExtra: print(gc.isenabled())\n"
    )
    found = output_of([sys.executable, "-c", program], ROOT).split()
    assert found == [str(enabled), str(enabled), "True", str(enabled)]  # the child was started by a fork server

"""Whole programs: tasks of the main module, work that is pending when the interpreter ends, forks of the parent."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from typing import TYPE_CHECKING

import pytest

from tests.scripts import Script, environment, run
from tests.variants import OPEN, VARIANTS, Variant
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ledger import Ledger

HEAD = """
import json, os, sys, time
from taskq import TaskQueue
"""

MAIN = (
    HEAD
    + f"""
def double(number):
    return 2 * number

class Thing:
    def __init__(self, value):
        self.value = value

def wrap(value):
    return Thing(value)

def unwrap(thing):
    return thing.value

class Odd(Exception):
    pass

def fail():
    raise Odd("from main")

if __name__ == "__main__":
    with {OPEN} as queue:
        print(queue.submit(double, 21).result(timeout=30))
        print(list(queue.map(double, range(5))))
        print(queue.submit(unwrap, queue.submit(wrap, "thing").result(timeout=30)).result(timeout=30))
        try:
            queue.submit(fail).result(timeout=30)
        except Odd as exc:
            print("Odd", exc)
"""
)

PRINTED = "42\n[0, 2, 4, 6, 8]\nthing\nOdd from main\n"


#: Of what durable executors refuse.
MAIN_TASKS = pytest.mark.needs("pickle", why="workers cannot import another program's main file: test_durable.py")


def runs_in_fork(variant: Variant) -> bool:
    """Return whether the variant's children are copies of the program, so that they need not import anything."""
    return variant.settings.get("start_method") == "fork"


def wait_for_workers(variant: Variant, done: Callable[[], bool]) -> None:
    """Wait until jobs that outlive their program are done; where they do not, they are, or never will be."""
    if "durable" in variant.capabilities:
        eventually(done, "the program's jobs to be done by the worker")


def all_ended(ledger: Ledger) -> bool:
    """Return whether every job that has started has ended."""
    texts = ledger.texts()
    return len(texts) == 2 * sum(text.startswith("start ") for text in texts)


@MAIN_TASKS
@pytest.mark.parametrize("main", ["file", "-m"])
def test_tasks_of_the_main_module(tmp_path: Path, variant: Variant, main: str) -> None:
    """Functions, classes and exceptions of the program's own main file work, however the program is started."""
    script = run(tmp_path, MAIN, *variant.for_script(), main=main)
    assert script.stdout == PRINTED
    assert script.stderr == ""


@MAIN_TASKS
def test_tasks_of_a_main_that_has_no_file(tmp_path: Path, variant: Variant) -> None:
    """Under `python -c` children cannot import the main module: refused with the cure, or run where possible."""
    with Script(tmp_path, MAIN, *variant.for_script(), main="-c") as script:
        code = script.wait()
        script.assert_gone()
    if code == 0:
        assert script.stdout == PRINTED
    else:
        assert not runs_in_fork(variant)
        assert "TaskRefused" in script.stderr
        assert "__main__" in script.stderr
        assert "file" in script.stderr or "module" in script.stderr


def test_imported_tasks_of_a_main_that_has_no_file(tmp_path: Path, variant: Variant) -> None:
    """Under `python -c`, tasks of importable modules run."""
    source = HEAD + f"with {OPEN} as queue: print(queue.submit(pow, 2, 5).result(timeout=30))"
    assert run(tmp_path, source, *variant.for_script(), main="-c").stdout == "32\n"


@MAIN_TASKS
@pytest.mark.parametrize("how", ["package", "folder", "zip file"])
def test_tasks_of_a_main_in_a_package(tmp_path: Path, variant: Variant, how: str) -> None:
    """Tasks, classes and errors of the `__main__.py` of a package, a folder or a zip file are those of any script."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(MAIN, encoding="utf-8")
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    start = {"package": ["-m", "app"], "folder": ["app"], "zip file": ["app.pyz"]}[how]
    command = [sys.executable, *start, *variant.for_script()]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, PRINTED, "")


def test_forgotten_main_guard(tmp_path: Path, variant: Variant) -> None:
    """A program without `if __name__ == "__main__"` ends soon, with the cure, instead of starting itself for ever."""
    source = HEAD + f"queue = {OPEN}\nprint(queue.submit(pow, 2, 5).result(timeout=40))\n"
    with Script(tmp_path, source, *variant.for_script()) as script:
        code = script.wait()
        script.assert_gone()
    if code == 0:
        assert script.stdout == "32\n"
    else:
        assert "__main__" in script.stderr, script.stderr
    assert script.stderr.count("Traceback") <= 1, "what the children say of it is the parent's to say"


@pytest.mark.parametrize("shutdown", ["", "queue.shutdown(wait=False)"])
def test_exit_with_pending_work(tmp_path: Path, variant: Variant, ledger: Ledger, shutdown: str) -> None:
    """A program that ends without waiting still finishes all its jobs, with and without a shutdown before."""
    source = (
        HEAD
        + f"""
from tests.sample_tasks import note_and_nap
if __name__ == "__main__":
    queue = {OPEN}
    jobs = [queue.submit(note_and_nap, sys.argv[3], number, 0.02) for number in range(20)]
    {shutdown}
    print("end of program")
"""
    )
    script = run(tmp_path, source, *variant.for_script(), ledger.path)
    assert (script.stdout, script.stderr) == ("end of program\n", "")
    wait_for_workers(variant, lambda: len(ledger.texts()) == 40)
    assert ledger.counts() == {f"{word} {number}": 1 for word in ("start", "end") for number in range(20)}


def test_exit_after_cancelling_shutdown(tmp_path: Path, variant: Variant, ledger: Ledger) -> None:
    """A program that cancels and does not wait ends when what runs has ended, and runs nothing else."""
    source = (
        HEAD
        + f"""
from tests.sample_tasks import note_and_nap
if __name__ == "__main__":
    queue = {OPEN}
    jobs = [queue.submit(note_and_nap, sys.argv[3], number, 0.2) for number in range(100)]
    queue.shutdown(wait=False, cancel_futures=True)
"""
    )
    script = run(tmp_path, source, *variant.for_script(), ledger.path)
    assert script.stderr == ""
    wait_for_workers(
        variant, lambda: sum(text.startswith("start") for text in ledger.texts()) * 2 == len(ledger.texts())
    )
    counts = ledger.counts()
    starts = sum(counts[f"start {number}"] for number in range(100))
    assert starts < 50
    assert sum(counts[f"end {number}"] for number in range(100)) == starts


def test_exit_with_an_open_map(tmp_path: Path, variant: Variant) -> None:
    """A program that ends in the middle of an endless map ends."""
    source = (
        HEAD
        + f"""
import itertools
if __name__ == "__main__":
    queue = {OPEN}
    results = queue.imap(abs, itertools.count())
    print(next(results), next(results))
"""
    )
    script = run(tmp_path, source, *variant.for_script())
    assert (script.stdout, script.stderr) == ("0 1\n", "")


def test_exit_by_error(tmp_path: Path, variant: Variant, ledger: Ledger) -> None:
    """A program that ends by an exception shows it, ends with code 1, and finishes what it submitted."""
    source = (
        HEAD
        + f"""
from tests.sample_tasks import note_and_nap
if __name__ == "__main__":
    queue = {OPEN}
    job = queue.submit(note_and_nap, sys.argv[3], "job", 0.1)
    raise LookupError("of the program")
"""
    )
    script = run(tmp_path, source, *variant.for_script(), ledger.path, code=1)
    assert "LookupError: of the program" in script.stderr
    wait_for_workers(variant, lambda: len(ledger.texts()) == 2)
    assert ledger.texts() == ["start job", "end job"]


def test_exit_from_a_job_handle(tmp_path: Path, variant: Variant) -> None:
    """A job's SystemExit, raised by `result()`, ends the program with its code; from a store it is a JobFailed."""
    source = (
        HEAD
        + f"""
from tests.sample_tasks import fail
if __name__ == "__main__":
    with {OPEN} as queue:
        queue.submit(fail, "SystemExit", 7).result(timeout=30)
"""
    )
    durable = "durable" in variant.capabilities
    script = run(tmp_path, source, *variant.for_script(), code=1 if durable else 7)
    assert ("JobFailed: SystemExit: 7" in script.stderr) is durable


def test_submit_at_exit(tmp_path: Path, variant: Variant) -> None:
    """Work handed over while the interpreter is ending is refused, or kept where there is a store: never lost."""
    source = (
        "import atexit\n"
        "@atexit.register\ndef last():\n"
        "    try:\n        print('kept', queue.job(queue.submit(pow, 2, 5).id).id != '')\n"
        "    except (RuntimeError, ConnectionError):\n        print('refused')\n"
        + HEAD
        + f"""
if __name__ == "__main__":
    queue = {OPEN}
    print(queue.submit(pow, 2, 4).result(timeout=30))
else:
    atexit.unregister(last)
"""
    )
    script = run(tmp_path, source, *variant.for_script())
    answers = {"refused", "kept True"} if "durable" in variant.capabilities else {"refused"}
    assert script.stdout in {f"16\n{answer}\n" for answer in answers}
    assert script.stderr == ""


@pytest.mark.needs("start_methods", why="a copy may use its stores, over connections of its own: test_durable.py")
@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_fork_of_the_parent(tmp_path: Path, variant: Variant, leave: str) -> None:
    """A program may fork itself while a queue is open: the copy neither hangs nor disturbs the original's queue."""
    source = (
        HEAD
        + f"""
import signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
if __name__ == "__main__":
    queue = {OPEN}
    before = [queue.submit(time.sleep, 0.01) for _ in range(50)]
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            queue.submit(pow, 2, 3)
        except RuntimeError as exc:
            print("refused", flush=True)
        {leave}
    _, status = os.waitpid(pid, 0)
    print("copy ended with", status)
    for job in before:
        job.result(timeout=30)
    print(sum(queue.map(abs, range(-1000, 0))))
    queue.shutdown()
"""
    )
    script = run(tmp_path, source, *variant.for_script())
    assert script.stdout == "refused\ncopy ended with 0\n500500\n"
    assert script.stderr == ""


@pytest.mark.needs("start_methods", why="what its jobs print is in their logs: test_context.py")
def test_output_of_jobs(tmp_path: Path, variant: Variant) -> None:
    """What jobs print appears in the program's own output, once and complete."""
    source = (
        HEAD
        + f"""
if __name__ == "__main__":
    with {OPEN} as queue:
        print("begin")
        list(queue.map(print, ["line " + str(number) for number in range(50)]))
"""
    )
    script = run(tmp_path, source, *variant.for_script())
    assert sorted(script.stdout.split("\n")) == sorted(["begin", *(f"line {number}" for number in range(50)), ""])


def test_table_of_variants() -> None:
    """Every variant has a name of its own."""
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)

"""Programs that fork while they have a pool: the copies make pools of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scripts import run

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os
from multiprocessing import get_context
from taskq import TaskQueue

def in_server():
    with get_context("forkserver").Pool(1) as pool:
        return pool.apply(abs, (-4,))

if __name__ == "__main__":
    with TaskQueue(processes=1, start_method="forkserver") as queue:
        assert queue.submit(abs, -1).result(30) == 1
        with TaskQueue(processes=1, start_method="fork") as forked:
            assert forked.submit(in_server).result(30) == 4
        child = os.fork()
        if child == 0:
            with TaskQueue(processes=1, start_method="forkserver") as own:
                os._exit(own.submit(abs, -3).result(30))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        assert queue.submit(abs, -2).result(30) == 2
    print("right")
"""


def test_copies_of_a_program_with_a_fork_server(tmp_path: Path) -> None:
    """Copies of a program, and forked children, use a fork server of their own; the program's own goes on."""
    script = run(tmp_path, PROGRAM)
    assert script.stdout.split() == ["right"], script.stderr

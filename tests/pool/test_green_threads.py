"""Programs whose threads and sockets a library of green threads has replaced."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

from taskq import TaskQueue
from taskq.errors import ConfigError
from tests.scripts import run

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import sys
if __name__ == "__main__" or sys.argv[1] == "everywhere":
    from gevent import monkey
    monkey.patch_all()

import gevent
from taskq import TaskQueue
from tests.sample_tasks import identity, nap

if __name__ == "__main__":
    with TaskQueue(processes=2, start_method=sys.argv[2]) as queue:
        assert [queue.submit(identity, number).result(30) for number in range(20)] == list(range(20))
        assert list(queue.imap(identity, iter(range(500)))) == list(range(500))
        big = bytes(3_000_000)
        assert queue.submit(identity, big).result(30) == big
        job = queue.submit(nap, 0.3)
        others = gevent.spawn(lambda: [gevent.sleep(0) for _ in range(100)])
        assert job.result(30) == 0.3 and others.successful()
        print(type(queue.options(timeout=0.3).submit(nap, 60).exception(30)).__name__, flush=True)
        print(type(queue.options(soft_timeout=0.3, timeout=20).submit(nap, 60).exception(30)).__name__, flush=True)
"""


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("where", ["parent", "everywhere"])
def test_gevent(tmp_path: Path, where: str, start_method: str) -> None:
    """A pool works in a program that gevent has patched, whose children it may have patched too."""
    pytest.importorskip("gevent")
    assert run(tmp_path, PROGRAM, where, start_method).stdout.split() == ["JobTimeout", "SoftTimeout"]


def test_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library has taken away what a pool needs, it is refused with the cure instead of a hang."""
    monkeypatch.delattr(select, "poll")
    with pytest.raises(ConfigError, match="select=False"):
        TaskQueue("local://")

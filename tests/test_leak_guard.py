"""The leak guard itself: each kind of leak is found and named, and what multiprocessing keeps is not called one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from multiprocessing import forkserver, resource_tracker, shared_memory

import pytest
import structlog

from taskq import log
from tests import leaks
from tests.processes import descendants, singletons
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard sees processes on Linux only")


@pytest.fixture
def before() -> leaks.Snapshot:
    """Look before the test."""
    return leaks.take()


def found(before: leaks.Snapshot) -> str:
    """Return what the guard finds, in one text, without waiting long."""
    return "\n".join(leaks.settle(before, grace=0.05))


def test_nothing(before: leaks.Snapshot) -> None:
    """Where nothing is left, nothing is found."""
    assert found(before) == ""


def test_process(before: leaks.Snapshot) -> None:
    """A child process is found, with its command line."""
    with subprocess.Popen([sys.executable, "-c", "input('leaked child')"], stdin=subprocess.PIPE) as child:
        assert f"process left behind: process {child.pid}" in found(before)
        assert "leaked child" in found(before)


def test_orphan(before: leaks.Snapshot) -> None:
    """A grandchild whose parent has ended is found: it is adopted, not lost to init."""
    source = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', 'import sys; sys.stdin.read()']\n"
        "child = subprocess.Popen(command, stdin=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(child.pid)"
    )
    read, write = os.pipe()
    try:
        ended = subprocess.run([sys.executable, "-c", source], stdin=read, capture_output=True, check=True, text=True)
        orphan = int(ended.stdout)
        assert f"process left behind: process {orphan}" in found(before)
    finally:
        os.close(write)
        os.close(read)
    eventually(lambda: leaks.settle(before, grace=0.05) == [], "the orphan to end and to be reaped")


def test_zombie(before: leaks.Snapshot) -> None:
    """A child that multiprocessing has not reaped is found."""
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    eventually(lambda: any(seen.pid == process.pid and seen.state == "Z" for seen in descendants()), "it to end")
    assert f"process {process.pid} (Z" in found(before)
    process.join()
    assert "process left" not in found(before)
    process.close()


def test_thread(before: leaks.Snapshot) -> None:
    """A thread is found by its name."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="leaked thread")
    thread.start()
    assert "leaked thread" in found(before)
    stop.set()
    thread.join()
    assert found(before) == ""


def test_descriptor(before: leaks.Snapshot) -> None:
    """An open descriptor is found, with what it leads to."""
    fd = os.open("/dev/null", os.O_RDONLY)
    assert f"{fd} -> /dev/null" in found(before)
    os.close(fd)
    assert found(before) == ""


def test_semaphore_and_shared_memory(before: leaks.Snapshot) -> None:
    """A named semaphore and a block of shared memory are found."""
    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    assert "sem.mp-t" in found(before)
    del lock
    assert found(before) == ""
    block = shared_memory.SharedMemory(create=True, size=10)
    assert block.name in found(before)
    block.close()
    block.unlink()
    assert found(before) == ""


def test_temporary_file(before: leaks.Snapshot) -> None:
    """A temporary file is found by its path."""
    fd, path = tempfile.mkstemp(prefix="leaked-")
    os.close(fd)
    assert path in found(before)
    os.remove(path)
    assert found(before) == ""


def test_signal_handler(before: leaks.Snapshot) -> None:
    """A signal handler that was set and not taken back is found."""
    old = signal.signal(signal.SIGTERM, _ignore)
    assert "signal handler left behind: SIGTERM -> " in found(before)
    signal.signal(signal.SIGTERM, old)
    assert found(before) == ""


def _ignore(_number: int, _frame: object) -> None:
    pass


def test_log(before: leaks.Snapshot) -> None:
    """A log that was set up and not taken back is found, ours or structlog's own."""
    log.configure("json", "error")
    assert "log set up left behind: taskq.log, as json" in found(before)
    log.silence()
    structlog.configure()
    assert "log set up left behind: structlog" in found(before)
    structlog.reset_defaults()
    assert found(before) == ""


@pytest.fixture
def helpers() -> set[int]:
    """Start multiprocessing's long-lived helpers."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()
    return singletons()


def test_helpers_are_no_leak(before: leaks.Snapshot, helpers: set[int]) -> None:
    """The forkserver and the resource tracker, their descriptors and their folder, are not called leaks."""
    assert len(helpers) == 2
    assert found(before) == ""


def test_by_count(before: leaks.Snapshot) -> None:
    """By count, one for another is no leak, and one more is."""
    first = os.open("/dev/null", os.O_RDONLY)
    with_first = leaks.take()
    second = os.open("/dev/zero", os.O_RDONLY)
    os.close(first)
    assert leaks.settle(with_first, by_count=True, grace=0.05) == []
    third = os.open("/dev/null", os.O_RDONLY)
    assert "/dev/zero" in "\n".join(leaks.settle(with_first, by_count=True, grace=0.05))
    os.close(second)
    os.close(third)

"""Large arguments and results: they arrive as they are, in linear time, once, and keep nobody waiting."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from taskq import TaskQueue
from taskq.executors.pool import protocol
from taskq.executors.pool.batches import CallBatch
from taskq.executors.pool.child_handle import ChildHandle
from taskq.executors.pool.functions import BATCH_BYTES, Function
from taskq.executors.pool.jobs import DEFAULTS, LocalJob
from taskq.executors.pool.payloads import LARGE
from taskq.executors.pool.scheduler import Backlog, Scheduler
from taskq.executors.pool.watchdog import Watchdog
from tests.conftest import warm_up
from tests.sample_tasks import capture, identity, pid, size_of
from tests.seams import executor_of
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MEGABYTE = 1 << 20
#: Where the way changes: what is large, what a shared region holds, what one turn sends; and beyond.
SIZES = (LARGE - 9, LARGE + 1, protocol.REGION_BYTES - 64, protocol.REGION_BYTES + 1, 33 * MEGABYTE, 5 * MEGABYTE)
KINDS = {
    "bytes": lambda size: b"x" * size,
    "text": lambda size: "ä" + "x" * size,
    "bytearray": bytearray,
    "list": lambda size: ["x" * 1000] * (size // 1000),
    "scalars": lambda size: (1, "x" * size, b"y"),
}


@pytest.fixture(scope="module", params=[False, True], ids=["loose", "strict"])
def queue(request: pytest.FixtureRequest) -> Iterator[TaskQueue]:
    """Give a local queue of two forked children."""
    with TaskQueue("local://", processes=2, start_method="fork", strict=request.param) as queue:
        warm_up(queue)  # the guard counts from here
        yield queue


@pytest.mark.parametrize("kind", KINDS)
def test_large_values_travel_in_and_out(queue: TaskQueue, kind: str) -> None:
    """A value of any size comes back equal: as the argument, by name, among others, and as an item of a map."""
    strict = executor_of(queue).strict
    if strict and kind == "bytearray":
        pytest.skip("the strict codec has no bytearray")
    for size in SIZES[1::2] if strict else SIZES:
        value = KINDS[kind](size)
        jobs = [queue.submit(identity, value), queue.submit(capture, 1, value, name=value)]
        assert jobs[0].result(PATIENCE) == value
        assert jobs[1].result(PATIENCE) == ((1, value), {"name": value})
        assert list(queue.imap(identity, [value, value])) == [value, value]


def test_results_of_both_children_arrive_whole_when_they_come_at_once(queue: TaskQueue) -> None:
    """Large results of several children, read in turns, are not mixed up."""
    values = [bytes([number]) * (10 * MEGABYTE + number) for number in range(6)]
    assert [job.result(PATIENCE) for job in queue.submit_many(identity, [(value,) for value in values])] == values


class HalfDeafSocket:
    """Takes a few bytes at a time, and keeps what it was given by reference."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.sources: set[int] = set()
        self.room = 0

    def sendmsg(self, buffers: Iterable[memoryview]) -> int:
        """Take up to 10,000 bytes, then say that there is no room."""
        if self.room <= 0:
            self.room = 10_000
            raise BlockingIOError
        taken = 0
        for buffer in buffers:
            self.sources.add(id(buffer.obj))
            part = buffer[: self.room]
            self.received += part
            taken += len(part)
            self.room -= len(part)
        return taken

    def send(self, data: bytes) -> int:
        """Take it as one buffer."""
        return self.sendmsg([memoryview(data)])


def child_on(sock: HalfDeafSocket) -> ChildHandle:
    """Return the handle of a child on this socket that knows every function."""
    page = SimpleNamespace(words=[0] * (protocol.WORDS_BYTES // 8), arguments=[])
    child = ChildHandle(SimpleNamespace(sock=sock, page=page, output=None))  # type: ignore[arg-type]
    child.known = {0}
    return child


def job_of(payload: bytes, function: Function) -> LocalJob:
    """Return a job of these arguments, which belongs to nobody."""
    return LocalJob(SimpleNamespace(session="s"), function, 1, payload)  # type: ignore[arg-type]


def test_what_the_socket_does_not_take_is_sent_on_without_a_copy() -> None:
    """However small the pieces that the socket takes, each comes out of the argument's own bytes."""
    sock, function = HalfDeafSocket(), Function(0, "f", b"", DEFAULTS, bound=False)
    job = job_of(os.urandom(protocol.REGION_BYTES + 5), function)
    job.bare_encoding = 3  # BARE_BYTES
    child = child_on(sock)
    child.send(CallBatch(function, [job]))
    while child.unsent:
        child.write_on()
    assert bytes(sock.received[-len(job.payload) :]) == job.payload
    assert id(job.payload) in sock.sources
    assert len(sock.sources) <= len({"header", "payload"})


def test_a_batch_of_calls_is_bounded_by_the_bytes_of_their_arguments() -> None:
    """Jobs that were measured as short do not share a frame of many megabytes: others could do some of them."""
    function, backlog = Function(0, "f", b"", DEFAULTS, bound=False), Backlog()
    function.sizer.observe(10_000, 1_000_000)
    for _ in range(40):
        backlog.add(job_of(bytes(BATCH_BYTES // 4), function))
    batch = backlog.take(1)
    assert isinstance(batch, CallBatch)
    assert len(batch) == len(("first", "second", "third", "fourth"))


def test_large_jobs_go_to_a_child_once(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being written, or decoded, is never taken back and sent again, though other children have nothing."""
    sent: Counter[int] = Counter()
    send = ChildHandle.send

    def counting(child: ChildHandle, batch: Any) -> None:
        sent.update(job.number for job in batch.jobs)
        send(child, batch)

    wait_until_fast(queue)
    monkeypatch.setattr(ChildHandle, "send", counting)
    jobs = [queue.submit(size_of, bytes(48 * MEGABYTE)) for _ in range(3)]
    jobs += [queue.submit(size_of, bytes(3 * MEGABYTE)) for _ in range(8)]
    assert [job.result(PATIENCE) for job in jobs] == [48 * MEGABYTE] * 3 + [3 * MEGABYTE] * 8
    assert set(sent.values()) == {1}


def test_what_is_being_written_is_not_shared() -> None:
    """A job that is half written to a busy child stays there, however long it may take, though another is idle."""
    function, sock = Function(0, "f", b"", DEFAULTS, bound=False), HalfDeafSocket()
    function.sizer.observe(1, 8_000_000)
    busy, idle = child_on(sock), child_on(HalfDeafSocket())
    busy.ready = idle.ready = True
    read = SimpleNamespace(read=lambda _: None, read_early=lambda _: True, fail_late=lambda _: None)
    supervisor = SimpleNamespace(children={0: busy, 1: idle}, **vars(read))
    watchdog = Watchdog(Scheduler(), supervisor)  # type: ignore[arg-type]  # a stand-in
    for size in (10, protocol.REGION_BYTES + 5):
        sock.room = 1000
        busy.send(CallBatch(function, [job_of(bytes(size), function)]))
    assert busy.unsent
    watchdog.tick(0.0)
    assert not busy.connection.page.words[protocol.STOP]
    while busy.unsent:
        busy.write_on()
    watchdog.tick(0.0)
    assert busy.connection.page.words[protocol.STOP]


def children_of(queue: TaskQueue) -> dict[int, ChildHandle]:
    """Return what the pool knows of its children."""
    found: dict[int, ChildHandle] = executor_of(queue).pool.dispatcher.supervisor.children
    return found


def stop(pid: int) -> None:
    """Stop a child that waits for its next order, and has told all of the one before."""
    status = Path(f"/proc/{pid}/stat")
    eventually(lambda: status.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "S", "the child to wait")
    os.kill(pid, signal.SIGSTOP)


def wait_until_fast(queue: TaskQueue) -> None:
    """Have the pool know that the function takes no time."""
    assert set(queue.map(size_of, [b"x"] * 2000)) == {1}


def test_a_job_that_is_being_written_can_be_cancelled() -> None:
    """A child that reads nothing does not keep the cancel of a large job waiting, and serves the next one after."""
    with TaskQueue("local://", processes=1, start_method="fork") as queue:
        child = queue.submit(pid).result(PATIENCE)
        stop(child)
        try:
            job = queue.submit(size_of, bytes(16 * MEGABYTE))
            children = children_of(queue)
            eventually(lambda: any(child.unsent for child in children.values()), "the socket is full")
            assert job.cancel()
        finally:
            os.kill(child, signal.SIGCONT)
        assert queue.submit(pid).result(PATIENCE) == child


def test_a_job_whose_child_dies_while_it_is_written_runs_in_another() -> None:
    """A death in the midst of a large frame loses nothing: the job goes to the next child."""
    with TaskQueue("local://", processes=1, start_method="fork") as queue:
        child = queue.submit(pid).result(PATIENCE)
        stop(child)
        job = queue.options(max_crashes=3).submit(size_of, bytes(16 * MEGABYTE))
        children = children_of(queue)
        eventually(lambda: any(child.unsent for child in children.values()), "the socket is full")
        os.kill(child, signal.SIGKILL)
        assert job.result(PATIENCE) == 16 * MEGABYTE

"""A child process: it reads orders, runs jobs and records outcomes.

    serve()  is the initializer of a `multiprocessing.Pool` and never returns, so the process never touches Pool's
             queues, whose locks a killed process would take with it.

    order ──▶ decode ──▶ claim a run of jobs ──▶ run them ──▶ commit to the journal ──▶ ... ──▶ flush with END

What is between claim and commit stands in `execution.py`. The parent sees the claim, so when the process dies it knows
which jobs may have been started.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic, monotonic_ns, perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any, Final, NoReturn

from taskq import context, runner
from taskq.executors.pool import payloads, protocol
from taskq.executors.pool.connection import RELEASE, connect_to_parent
from taskq.executors.pool.execution import ChildState, Execution
from taskq.executors.pool.functions import find_function
from taskq.executors.pool.journal import Journal
from taskq.executors.pool.output import OutputCapture
from taskq.executors.pool.reporter import ParentReporter
from taskq.failure import Failure
from taskq.frozen import Frozen
from taskq.states import Reason

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from types import FrameType

    from taskq.executors.pool.connection import ParentConnection

#: Bytes of a payload that are read into memory that is kept, to spare the system the trouble of finding new one.
_SHORT_PAYLOAD: Final = 64 * 1024
_KEPT_BUFFER: Final = 32 * 1024 * 1024
#: Signals by which a program is told to stop; Ctrl-C is ignored by its children anyway.
STOPS: Final = (signal.SIGTERM, signal.SIGHUP)
#: Seconds within which the program says that it was told to stop, too, and seconds between two looks at that.
_STOP_WITHIN, _LOOK = 1.0, 0.01


class ChildSettings(Frozen):
    """What every child of one pool is told when it starts."""

    session: str
    strict: bool = False
    max_tasks: int | None = None
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    #: Whether what jobs print is kept with them; else it goes where the parent's output goes.
    capture: bool = False
    #: Whether the program lets jobs go on when it is told to stop, and says so: then its signals, sent to all, do not
    #: end them. Else they do unless the program has a handler of its own for them.
    outlasts_stop: bool = False


def serve(handshake: socket.socket, settings: ChildSettings) -> NoReturn:
    """Run jobs until the parent hangs up. Called by Pool as its initializer; ends the process by SystemExit."""
    global _serving  # noqa: PLW0603  # what this process is, for the processes that jobs fork
    _leave_parents_signals()
    runner.begin_process()
    context.provide(None)
    capture = OutputCapture() if settings.capture else None
    end = connect_to_parent(handshake, None if capture is None else capture.fd)
    handshake.close()
    _serving = child = Child(end, settings, capture)
    child.start(settings)
    with suppress(KeyboardInterrupt):  # meant for a job that had just ended
        child.work()
    raise SystemExit(0)


#: The child that this process is; None: it is none, or was forked by a job of one.
_serving: Child | None = None


def _in_forked_process() -> None:
    """Cut a process that a job forks off from the parent: only the child itself reads, claims, commits and flushes."""
    global _serving  # as in serve
    child, _serving = _serving, None
    if child is not None:
        runner.disown()
        child.close_in_fork()
        for number in STOPS:
            if getattr(signal.getsignal(number), "__self__", None) is child:
                signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_in_forked_process)


def _leave_parents_signals() -> None:
    """Take default signals and a process group of our own: Ctrl-C is the parent's affair, and one kill reaches all."""
    signal.set_wakeup_fd(-1)
    for number, action in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.SIG_IGN)):
        signal.signal(number, action)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setpgid(0, 0)


def _die_of(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _handles(process: BaseProcess | None, number: int) -> bool:
    """Tell whether a process lives on at a signal, where the system tells that (Linux)."""
    try:
        with open(f"/proc/{process and process.pid}/status", encoding="utf-8") as file:  # noqa: PTH123  # a quick start
            text = file.read()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in text.splitlines() if line.startswith(("SigIgn:", "SigCgt:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def _flush_prints() -> None:
    """Let what jobs printed be seen now, not when this process ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # no stream, a closed one, a broken pipe: not the job's affair
            continue


class _Clock:
    """The clock of the running job: its time does not count while something is imported, and the parent sees that."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._ran = 0

    def stop(self) -> None:
        """Count no longer."""
        words = self._words
        now = words[protocol.IMPORTING] = monotonic_ns()
        if words[protocol.START]:
            self._ran = now - words[protocol.START]
            words[protocol.START] = 0
        else:
            self._ran = -1

    def go_on(self) -> None:
        """Count on from where it was stopped, if a job with a time limit ran."""
        self._words[protocol.IMPORTING] = 0
        if self._ran >= 0:
            self._words[protocol.START] = monotonic_ns() - self._ran


class Child:
    """One child process: reads orders, and has their jobs executed."""

    def __init__(self, parent: ParentConnection, settings: ChildSettings, capture: OutputCapture | None = None) -> None:
        self._parent = parent
        self._input = parent.input
        self._send_lock = threading.Lock()
        self._words = words = parent.page.words
        self._arguments = parent.page.arguments
        self._journal = Journal(parent.page, self._send)
        self._strict = settings.strict
        self._reporter = ParentReporter(words, self._send, capture)
        self._state = ChildState(words, self._journal, self._reporter, settings)
        self._execution: Execution | None = None
        self._buffer = bytearray()
        self._clock = _Clock(words)

    # -- life

    def start(self, settings: ChildSettings) -> None:
        """Let jobs be ordinary programs (they may have children of their own), run the initializer, report for work."""
        multiprocessing.current_process().daemon = False
        signal.signal(RELEASE, self._release)
        act = self._told_to_stop if settings.outlasts_stop else self._follow_program
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, act)
        if settings.initializer is not None:
            try:
                with context.clock_running(self._clock), context.clocks_paused():
                    settings.initializer(*settings.initargs)
            except BaseException as error:  # noqa: BLE001  # even SystemExit: the parent must hear why
                self._report_failed_start(error)
        if self._reporter.capture is not None:
            self._reporter.capture.take_over()
        self._send(protocol.REPORT.pack(0, protocol.READY, 0, protocol.ON_SOCKET, 0, 0))

    def _report_failed_start(self, error: BaseException) -> NoReturn:
        body = payloads.pack_failure(Failure.from_exception(error), error, strict=self._strict)
        self._send(protocol.REPORT.pack(len(body), protocol.INIT_FAILED, 0, protocol.ON_SOCKET, 0, 0) + body)
        raise SystemExit(1)

    def _release(self, _signal: int, _frame: FrameType | None) -> None:
        if self._execution is None or self._send_lock.locked():  # locked: perhaps by what was interrupted
            return
        if self._words[protocol.INTERRUPT] == protocol.ASKED:
            self._words[protocol.INTERRUPT] = protocol.RAISED
            raise KeyboardInterrupt
        self._execution.release()

    def _told_to_stop(self, number: int, _frame: FrameType | None) -> None:
        """Leave a signal to the program if it was sent to all of its processes; die of it if it was for this one.

        A handler, not SIG_IGN: programs that a job starts would inherit that.
        """
        deadline = monotonic() + _STOP_WITHIN
        while not self._words[protocol.LEAVING]:
            if monotonic() > deadline:
                _die_of(number)
                return
            sleep(_LOOK)

    def _follow_program(self, number: int, _frame: FrameType | None) -> None:
        """Leave a signal to the program if that handles it, since it may have been sent to all; else die of it."""
        if not _handles(multiprocessing.parent_process(), number):
            _die_of(number)

    def work(self) -> None:
        """Serve orders until the parent closes the connection, or the share of tasks is done."""
        with context.clock_running(self._clock):
            self._serve_all()

    def _serve_all(self) -> None:
        while True:
            header = self._input.read(protocol.ORDER.size)
            if len(header) < protocol.ORDER.size:
                return
            order = protocol.Order._make(protocol.ORDER.unpack(header))
            if order.kind == protocol.DEFINE:
                self._words[protocol.PHASE] = protocol.DEFINING
                self._state.functions[order.function] = self._define(order)
            elif order.kind == protocol.FORGET:
                self._state.functions.pop(order.function, None)
                self._state.run_lengths.pop(order.function, None)
            elif order.kind == protocol.QUEUE:
                self._state.queue = self._input.read(order.bytes).decode()
            elif order.kind == protocol.RECALL:
                self._reporter.recall(self._state.next_seq, self._input.read(order.bytes))
            elif not self._serve(order):
                return

    def _define(self, order: protocol.Order) -> Callable[..., Any] | Exception:
        """Return the function of a definition ready to run, or the reason why there is none."""
        definition = self._input.read(order.bytes)
        try:
            return runner.prepare(find_function(definition))
        except Exception as error:  # noqa: BLE001  # importing a user's module may raise anything
            return error

    def _serve(self, order: protocol.Order) -> bool:
        """Run one batch and report its end; return whether there is life after it."""
        self._words[protocol.PHASE] = protocol.DECODING
        started = perf_counter_ns()
        last = self._state.next_seq + order.jobs
        items = self._decode(order)
        flags = protocol.END
        if items is None:
            flags |= protocol.UNDECODABLE
        else:
            self._words[protocol.PHASE] = protocol.RUNNING
            self._execution = Execution(self._state, order, items)
            self._execution.go()
            self._execution = None
            context.provide(None)
            if self._journal.done < last:
                flags |= protocol.STOPPED
        self._words[protocol.PHASE] = protocol.IDLE
        _flush_prints()
        if self._reporter.last_progress is not None:
            self._reporter.send_progress()
        state = self._state
        retiring = state.max_tasks is not None and state.tasks >= state.max_tasks
        self._journal.flush(flags | (protocol.RETIRING if retiring else 0), perf_counter_ns() - started)
        self._journal.done = self._state.next_seq = last
        return not retiring

    def _decode(self, order: protocol.Order) -> list[Any] | None:
        """Return the items of a batch, or None when their bytes cannot be read."""
        try:
            items = list(self._read_items(order))
        except Exception as error:  # noqa: BLE001  # arguments of any class may fail to be rebuilt in any way
            if order.jobs == 1:
                self._journal.commit(
                    1, payloads.FAILURE, payloads.pack_error(error, Reason.UNDECODABLE, strict=self._strict)
                )
            return None
        if order.kind == protocol.CALLS and order.encoding in {payloads.BARE_BYTES, payloads.LARGE_CALL}:
            return [(order.first, *items)]
        return items

    def _read_items(self, order: protocol.Order) -> Any:
        if order.place == protocol.ON_SOCKET:
            return self._unpack(order, self._receive(order))
        try:
            return self._unpack(order, self._arguments[order.place - 1][: order.bytes])
        finally:
            self._words[protocol.TAKEN] += 1

    def _receive(self, order: protocol.Order) -> bytes | memoryview:
        """Read a payload: into memory of its size, or that of an earlier one where nothing will refer to it."""
        size = order.bytes
        if order.encoding == payloads.BARE_BYTES or not _SHORT_PAYLOAD < size <= _KEPT_BUFFER:
            return self._input.read(size)
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        data = memoryview(self._buffer)[:size]
        self._input.readinto(data)
        return data

    def _unpack(self, order: protocol.Order, data: bytes | memoryview) -> Any:
        if order.encoding == payloads.LARGE_CALL:
            return payloads.unpack_call(data, strict=self._strict)
        items = payloads.unpack(order.encoding, data)
        return (items, None) if order.kind == protocol.CALLS and order.encoding == payloads.BARE_BYTES else items

    def _send(self, data: bytes) -> None:
        with self._send_lock:
            try:
                self._parent.sock.sendall(data)
            except OSError:  # the parent is gone
                os._exit(0)

    def close_in_fork(self) -> None:
        """Be no child any more, in a process that a job has forked."""
        self._execution = None
        self._parent.close_in_fork()
        self._input = self._parent.input

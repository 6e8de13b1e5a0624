"""The private connection between a child and its parent, and how a fresh child makes it.

    child                                             parent
    makes socket pair, page, pidfd, parent-death pipe
    Hello ──one datagram with the descriptors───▶  HandshakeListener.accept() → ChildConnection
    arms the pipe, keeps socket and page              keeps socket, page, pidfd, write end of the pipe

Nothing has a name in the file system, nothing is inherited but the handshake socket, and a replacement child makes a
new connection: whatever kills either side at any instant, the kernel frees everything and no half-read message is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import select
import signal
import socket
import threading

from taskq.executors.pool.protocol import HELLO, VERSION, SharedPage, create_memory
from taskq.locks import pass_on

#: Bytes that either direction of the socket may hold, so that a batch is one system call.
_SOCKET_BUFFER = 512 * 1024
#: Descriptors of a hello at the most: socket, page, parent-death pipe, and where there are such, pidfd and output.
_DESCRIPTORS = 5
#: Of these, the ones that are always there.
_BASIC = 3
#: What a hello says of the others.
_HAS_PIDFD, _HAS_OUTPUT = 1 << 16, 1 << 17
#: Bytes of orders that a child reads at once.
_READ_AHEAD = 1 << 16
#: Asks a child to release the jobs it has claimed but not started. Ignored by default, and hardly used by programs.
RELEASE = signal.SIGURG


class ChildConnection:
    """The parent's end of the connection to one child. `pidfd` is None where the platform has none.

    `output`: the file that everything goes into which the child prints; None: it prints where this process does.
    """

    def __init__(
        self,
        pid: int,
        sock: socket.socket,
        page: SharedPage,
        *,
        pidfd: int | None,
        death_pipe: int,
        waker: Waker | None = None,
        output: int | None = None,
    ) -> None:
        self.pid = pid
        self.sock = sock
        self.page = page
        self.pidfd = pidfd
        self.death_pipe = death_pipe
        self.waker = waker
        self.output = output

    def close(self) -> None:
        """Free everything; a child that still lives dies of it."""
        self.sock.close()
        self.page.close()
        os.close(self.death_pipe)
        if self.waker is not None:
            self.waker.close()
        for fd in (self.pidfd, self.output):
            if fd is not None:
                os.close(fd)

    def disconnect(self) -> None:
        """Let the child read the end of its orders."""
        with contextlib.suppress(OSError):  # it is gone
            self.sock.shutdown(socket.SHUT_WR)

    def close_in_fork(self) -> None:
        """Close the descriptors in a forked copy of the parent, so that the parent-death pipe has one holder only."""
        for fd in (self.sock.detach(), self.death_pipe, self.pidfd, self.output):
            if fd is not None and fd >= 0:
                os.close(fd)
        if self.waker is not None:
            self.waker.close()

    def is_alive(self) -> bool:
        """Tell whether the child lives; without a pidfd, whether there is a process with its number."""
        if self.pidfd is not None:
            return not _is_readable(self.pidfd)
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return True

    def ask_to_release(self) -> None:
        """Interrupt the running job for the moment that it takes to let go of those behind it."""
        with contextlib.suppress(ProcessLookupError):
            if self.is_alive():
                os.kill(self.pid, RELEASE)

    def terminate(self) -> None:
        """Ask the child to end, with the processes it started."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the child at once, whatever it runs, with the processes it started."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if not self.is_alive():
            return  # its pid may be another process's by now
        for end in (os.killpg, os.kill):
            try:
                end(self.pid, number)
            except (ProcessLookupError, PermissionError):
                continue


class Waker:
    """Wakes threads that wait for a child's next report, also while earlier ones are unread. Linux only."""

    def __init__(self, sock: socket.socket) -> None:
        self._epoll = select.epoll()
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLET)

    def listen_to(self, fd: int) -> None:
        """Let this descriptor, when it is written to, wake them as well."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def wait(self, seconds: float) -> None:
        """Return when there is something new, or after so many seconds."""
        try:
            self._epoll.poll(seconds)
        except (OSError, ValueError) as error:  # the child has died, and its connection was closed
            pass_on(error)

    def close(self) -> None:
        """Free it."""
        self._epoll.close()


class HandshakeListener:
    """Where children say hello. `child_end` goes to them as an argument of their process."""

    def __init__(self) -> None:
        self.parent_end, self.child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.parent_end.setblocking(False)

    def accept(self) -> ChildConnection | int | None:
        """Return the connection of the next child that has said hello; None when there is none.

        Where this process has no descriptors left for the connection, return the child's pid: it exits, and
        multiprocessing starts another.
        """
        try:
            data, fds, _, _ = socket.recv_fds(self.parent_end, HELLO.size, _DESCRIPTORS)
        except BlockingIOError:
            return None
        version, pid = HELLO.unpack(data)
        try:
            return self._connection(version, pid, fds)
        except OSError:
            return int(pid)

    @staticmethod
    def _connection(version: int, pid: int, fds: list[int]) -> ChildConnection:
        with contextlib.ExitStack() as unused:
            for fd in fds:
                unused.callback(os.close, fd)
            flags, version = version & ~0xFFFF, version & 0xFFFF
            if version != VERSION:
                message = f"child {pid} speaks version {version} of the pool's protocol, not {VERSION}: mixed versions"
                raise RuntimeError(message)
            if len(fds) < _BASIC + flags.bit_count():
                raise OSError(errno.EMFILE, "no descriptors left")
            page = SharedPage(fds[1])
            unused.pop_all()
        os.close(fds[1])
        sock = socket.socket(fileno=fds[0])
        sock.setblocking(False)
        pidfd = fds[3] if flags & _HAS_PIDFD else None
        output = fds[-1] if flags & _HAS_OUTPUT else None
        waker = Waker(sock) if pidfd is not None and hasattr(select, "epoll") else None
        return ChildConnection(
            pid=pid, sock=sock, page=page, pidfd=pidfd, death_pipe=fds[2], waker=waker, output=output
        )

    def close(self) -> None:
        """Hear no more hellos."""
        self.parent_end.close()
        self.child_end.close()


class ParentConnection:
    """The child's end of its connection. `input` is what it reads its orders from."""

    def __init__(self, sock: socket.socket, page: SharedPage, death_pipe: int) -> None:
        self.sock = sock
        self.page = page
        self._death_pipe = death_pipe
        self._input = os.dup(sock.fileno())
        self.input: io.BufferedIOBase = io.BufferedReader(io.FileIO(self._input, closefd=False), _READ_AHEAD)

    def close_in_fork(self) -> None:
        """Let go of it in a process that this one has forked, without a lock: a thread that is not there may hold it.

        The connection's end tells the parent that its child has ended, and the page is for the child to write.
        """
        for fd in (self.sock.detach(), self._input, self._death_pipe):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.input = io.BytesIO()
        with contextlib.suppress(BufferError):  # a thread that is not here any more reads an argument
            self.page.close()


def connect_to_parent(handshake: socket.socket, output: int | None = None) -> ParentConnection:
    """Make this process's connection, hand the parent its end, and see to it that this process dies with the parent.

    `output`: the file that this process is going to print into, for the parent to read.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER)
    os.set_blocking(ours.fileno(), True)  # also where a library of green threads has replaced sockets
    memory = create_memory()
    death_read, death_write = os.pipe()
    pidfd = [os.pidfd_open(os.getpid())] if hasattr(os, "pidfd_open") else []
    printed = [] if output is None else [output]
    flags = (_HAS_PIDFD if pidfd else 0) | (_HAS_OUTPUT if printed else 0)
    try:
        fds = [theirs.fileno(), memory, death_write, *pidfd]
        socket.send_fds(handshake, [HELLO.pack(VERSION | flags, os.getpid())], [*fds, *printed])
    except OSError as error:  # the parent has gone or is closing
        raise SystemExit(0) from error
    page = SharedPage(memory)
    theirs.close()
    for fd in fds[1:]:
        os.close(fd)
    die_with_writer(death_read)
    return ParentConnection(ours, page, death_read)


def die_with_writer(death_read: int) -> None:
    """Have this process killed when the last writer of the pipe goes: the kernel does it, even inside C code."""
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(death_read, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(death_read, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(death_read, fcntl.F_SETFL, fcntl.fcntl(death_read, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    else:  # macOS: a thread that waits; it cannot run while C code holds the interpreter
        threading.Thread(target=_wait_and_die, args=(death_read,), daemon=True).start()
    if _is_readable(death_read):  # the parent went before the pipe was armed
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_and_die(death_read: int) -> None:
    os.read(death_read, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))

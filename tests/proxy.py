"""A TCP proxy with faults: it delays, cuts, freezes, or forwards a request and loses the reply.

    client ──▶ [ front ] Pair [ back ] ──▶ server         one thread, one selector, bytes in both directions
                    up ─────▶
                    ◀───── down

Everything that tests set takes effect at once, for open and for new connections.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: Bytes read at once.
CHUNK = 65_536

#: Seconds for a connection to the server; it is on this machine.
CONNECT = 5.0


class Flow:
    """One direction of a connection: what was read and not yet passed on, with the moment when it may be."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.held: deque[tuple[float, bytes]] = deque()


class Pair:
    """A client's connection and ours to the server, with what flows up to it and down from it."""

    def __init__(self, front: socket.socket, back: socket.socket) -> None:
        self.front = front
        self.back = back
        self.up = Flow(front, back)
        self.down = Flow(back, front)
        self.doomed = False

    def close(self) -> None:
        """Close both ends."""
        for end in (self.front, self.back):
            end.close()


class Proxy(threading.Thread):
    """Forward to `target` from `host:port`. `with` starts it and ends it."""

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        super().__init__(name="proxy", daemon=True)
        self._target = target
        self._listener = socket.create_server((host, 0))
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()[:2]
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._orders: deque[Callable[[], None]] = deque()
        self._pairs: set[Pair] = set()
        self._by_socket: dict[int, tuple[Pair, Flow]] = {}
        self._running = True
        self._open = True
        self._delay = 0.0
        self._frozen_up = self._frozen_down = False
        self._drops = 0
        self._match = b""
        #: Replies that were lost so far, and bytes that were passed on.
        self.dropped = 0
        self.passed = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._order(self._stop)
        self.join()
        for end in (self._wake_read, self._wake_write):  # only here: the thread may end while `_order` still writes
            os.close(end)

    # -- faults, from the test's thread; each returns when it holds

    def delay(self, seconds: float) -> None:
        """Pass everything on so many seconds late, both ways."""
        self._order(lambda: setattr(self, "_delay", seconds))

    def cut(self) -> None:
        """Close all connections, and refuse new ones until `heal`."""
        self._order(self._cut)

    def reset(self) -> None:
        """Close all connections; new ones are taken."""
        self._order(self._close_all)

    def freeze(self, *, up: bool = True, down: bool = True) -> None:
        """Pass nothing on, towards the server (`up`), from it (`down`), or both, and close nothing: a silent cut."""

        def hold() -> None:
            self._frozen_up, self._frozen_down = up, down

        self._order(hold)

    def heal(self) -> None:
        """Take all faults back; what was held is passed on."""
        self._order(self._heal)

    def drop_replies(self, times: int, match: bytes = b"") -> None:
        """Pass the next so many requests with `match` in them on, then lose the reply and close the connection."""

        def arm() -> None:
            self._drops, self._match = times, match

        self._order(arm)

    @property
    def drops_left(self) -> int:
        """Return how many replies are still to be lost."""
        return self._drops

    def _order(self, what: Callable[[], None]) -> None:
        """Have the proxy's thread do this, and wait until it has."""
        done = threading.Event()
        self._orders += (what, done.set)
        os.write(self._wake_write, b"!")
        assert done.wait(10), "the proxy does not answer"

    # -- the proxy's thread

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            while self._running:
                for key, _ in self._selector.select(self._pause()):
                    self._serve(key.fileobj)
                while self._orders:
                    self._orders.popleft()()
                self._pass_on()
        finally:
            self._close_all()
            self._selector.close()
            self._listener.close()

    def _pause(self) -> float | None:
        """Return the seconds until the next held bytes are due; None: there are none, or they are frozen."""
        due = [
            flow.held[0][0]
            for pair in self._pairs
            for flow, frozen in ((pair.up, self._frozen_up), (pair.down, self._frozen_down))
            if flow.held and not frozen
        ]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _serve(self, source: object) -> None:
        if source == self._wake_read:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, CHUNK)
        elif source is self._listener:
            self._accept()
        elif isinstance(source, socket.socket) and source.fileno() in self._by_socket:
            self._read(*self._by_socket[source.fileno()])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            front, _ = self._listener.accept()
            try:
                self._connect(front)
            except OSError:
                front.close()

    def _connect(self, front: socket.socket) -> None:
        if not self._open:
            raise ConnectionRefusedError("the cable is cut")
        pair = Pair(front, socket.create_connection(self._target, timeout=CONNECT))
        self._pairs.add(pair)
        for end, flow in ((pair.front, pair.up), (pair.back, pair.down)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(CONNECT)
            self._by_socket[end.fileno()] = (pair, flow)
            self._selector.register(end, selectors.EVENT_READ)

    def _read(self, pair: Pair, flow: Flow) -> None:
        try:
            data = flow.source.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._flush(pair, flow)
            self._close(pair)
        elif flow is pair.down and pair.doomed:
            self.dropped += 1
            self._close(pair)
        else:
            if flow is pair.up and self._drops and self._match in data:
                self._drops -= 1
                pair.doomed = True
            flow.held.append((time.monotonic() + self._delay, data))

    def _pass_on(self) -> None:
        now = time.monotonic()
        for pair in list(self._pairs):
            for flow, frozen in ((pair.up, self._frozen_up), (pair.down, self._frozen_down)):
                while not frozen and flow.held and flow.held[0][0] <= now and pair in self._pairs:
                    self._send(pair, flow, flow.held.popleft()[1])

    def _flush(self, pair: Pair, flow: Flow) -> None:
        """Pass the last words on before the connection is closed."""
        frozen = self._frozen_up if flow is pair.up else self._frozen_down
        while not frozen and flow.held and pair in self._pairs:
            self._send(pair, flow, flow.held.popleft()[1])

    def _send(self, pair: Pair, flow: Flow, data: bytes) -> None:
        self.passed += len(data)  # before it is: a test that has got the bytes finds them counted
        try:
            flow.sink.sendall(data)
        except OSError:
            self._close(pair)

    def _close(self, pair: Pair) -> None:
        if pair in self._pairs:
            self._pairs.discard(pair)
            for end in (pair.front, pair.back):
                self._by_socket.pop(end.fileno(), None)
                self._selector.unregister(end)
            pair.close()

    def _close_all(self) -> None:
        for pair in list(self._pairs):
            self._close(pair)

    def _cut(self) -> None:
        self._open = False
        self._close_all()

    def _heal(self) -> None:
        self._open = True
        self._delay = 0.0
        self._frozen_up = self._frozen_down = False

    def _stop(self) -> None:
        self._running = False

"""Health of a worker as it is told: over HTTP to monitors, by sd_notify to systemd.

/health is for load balancers and orchestrators, /metrics for Prometheus. A thread of its own serves both, so that they
answer while the loop waits for an absent store; it only reads. Clients are bounded in number and in time. On a loopback
address only requests that name such a host are answered: a web page could send others, by a name of its own that leads
there.

systemd is told that the worker is ready, lives, and stops. Source: sd_notify(3). Without NOTIFY_SOCKET nothing is told.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Health", "SystemdNotifier"]

#: Seconds that a client gets from its connection to the end of its answer.
_CLIENT_TIMEOUT: Final = 5.0

#: Clients that are served at a time; what comes beyond is closed.
_CLIENTS: Final = 16

#: Metrics by name: what they count, and whether that only grows.
_METRICS: Final = {
    "succeeded": ("taskq_worker_jobs_succeeded_total", "counter", "Jobs that succeeded here."),
    "failed": ("taskq_worker_jobs_failed_total", "counter", "Jobs that failed here."),
    "held": ("taskq_worker_jobs_held", "gauge", "Jobs claimed and not yet ended."),
    "running": ("taskq_worker_jobs_running", "gauge", "Jobs running."),
    "processes": ("taskq_worker_processes", "gauge", "Jobs that can run at once."),
    "outcomes_waiting": ("taskq_worker_outcomes_waiting", "gauge", "Outcomes that the store was not told yet."),
    "backend_away_s": ("taskq_worker_backend_away_seconds", "gauge", "Seconds since the store was reached last."),
    "uptime_s": ("taskq_worker_uptime_seconds", "gauge", "Seconds since the start."),
}
#: Signs of life in each watchdog interval.
_BEATS: Final = 3


class Health:
    """Serve it from construction to `close`; before there is a `source` it says "starting".

    Raises:
        ConfigError: the port cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        #: What is told; set when there is something to tell.
        self.source: Callable[[], dict[str, Any]] = dict
        try:
            self._server = _Server((host, port), _handler(lambda: {"status": "starting", **self.source()}))
        except OSError as error:
            raise ConfigError(f"--health-port {port} on {host}: {error.strerror}: give another port") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="taskq-health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it is served on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Serve it no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Serve so many clients at a time, each in a thread."""

    def __init__(self, *args: Any) -> None:
        self._room = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a client, if there is room."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client; make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write no traceback for a client that went away."""


class _Reader(io.RawIOBase):
    """Read from a client until its time is over, however little it sends at a time."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = time.monotonic() + _CLIENT_TIMEOUT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        rest = self._deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        self._connection.settimeout(rest)
        return self._connection.recv_into(buffer)


def _is_address(name: str) -> bool:
    """Tell whether a host is named by its address, which no name of somebody else's can be."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_meant(host: str | None, bound: str) -> bool:
    """Tell whether a request's Host may name us, who are bound to an address."""
    if not host or not ipaddress.ip_address(bound).is_loopback:
        return True
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower() in ("localhost", socket.gethostname().lower()) or _is_address(name)


def _handler(state: Callable[[], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answer the two paths."""

        timeout = _CLIENT_TIMEOUT
        server_version = "taskq"
        sys_version = ""

        def setup(self) -> None:
            super().setup()
            self.rfile = io.BufferedReader(_Reader(self.connection))

        def do_GET(self) -> None:  # the name that http.server calls
            found = state()
            if not _is_meant(self.headers.get("Host"), self.connection.getsockname()[0]):
                self._answer(421, "text/plain", "this is another host\n")
            elif self.path == "/health":
                self._answer(200 if found["status"] == "ok" else 503, "application/json", json.dumps(found) + "\n")
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", _metrics(found))
            else:
                self._answer(404, "text/plain", "there is /health and /metrics\n")

        def _answer(self, code: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's signature
            """Write no line for each request."""

    return Handler


def _metrics(found: dict[str, Any]) -> str:
    name = str(found.get("name", "")).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    label = f'{{worker="{name}"}}'
    lines = [
        f"# HELP {metric} {text}\n# TYPE {metric} {kind}\n{metric}{label} {found[key]}\n"
        for key, (metric, kind, text) in _METRICS.items()
        if key in found
    ]
    up = f"# HELP taskq_worker_up Whether the worker takes jobs.\n# TYPE taskq_worker_up gauge\ntaskq_worker_up{label} "
    return "".join(lines) + f"{up}{int(found['status'] == 'ok')}\n"


class SystemdNotifier:
    """Tell the service manager that started this process, if one did."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every = _watchdog_seconds() / _BEATS
        #: When the next sign of life is due, by the monotonic clock.
        self.next_beat = 0.0 if self._every else float("inf")

    def ready(self, text: str) -> None:
        """Tell that the service has begun."""
        self._tell(f"READY=1\nSTATUS={text}")

    def stopping(self) -> None:
        """Tell that the service is about to end."""
        self._tell("STOPPING=1")

    def beat(self) -> None:
        """Give a sign of life when one is due."""
        if monotonic() >= self.next_beat:
            self.next_beat = monotonic() + self._every
            self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), self._address)


def _watchdog_seconds() -> float:
    """Return the interval in which a sign of life is wanted; 0: none is, or not of this process."""
    told, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(told) / 1e6 if told.isdecimal() and pid == str(os.getpid()) else 0.0

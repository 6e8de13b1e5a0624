"""Where the jobs of one measurement live: a redis-server of its own, or a folder for a file."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Seconds in which redis-server must answer.
START_S = 10.0
#: Commands that this bench sends for itself.
OURS = frozenset({"info", "config|resetstat", "ping", "client|setinfo", "hello"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What has been spent since the start. A file counts no commands."""

    size_bytes: float
    commands: float = 0.0
    round_trips: float = 0.0


class Place(ABC):
    """Where jobs live."""

    #: What the libraries are told: a URL, or the path of a file.
    address: str

    @abstractmethod
    def usage(self) -> Usage:
        """Return what has been spent so far."""

    def cost(self, before: Usage, jobs: int) -> dict[str, float]:
        """Return what each of so many jobs has cost since."""
        now = self.usage()
        return {
            "bytes_per_job": (now.size_bytes - before.size_bytes) / jobs,
            "commands_per_job": (now.commands - before.commands) / jobs,
            "round_trips_per_job": (now.round_trips - before.round_trips) / jobs,
        }


class RedisServer(Place):
    """A fresh redis-server on a free port of 127.0.0.1, in memory only. It ends with this process' session."""

    def __init__(self) -> None:
        """Start it and wait until it answers."""
        import redis

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._server = subprocess.Popen([*command, "--dir", tempfile.gettempdir()], stdout=subprocess.DEVNULL)
        self.address = f"redis://127.0.0.1:{port}/0"
        self.client: Any = redis.Redis(port=port, socket_timeout=START_S)
        end = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > end or self._server.poll() is not None:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.01)

    def usage(self) -> Usage:
        commands = self.client.info("commandstats")
        memory = self.client.info("memory")
        return Usage(
            size_bytes=memory["used_memory"] - memory["mem_clients_normal"],
            commands=sum(
                entry["calls"] for name, entry in commands.items() if name.removeprefix("cmdstat_") not in OURS
            ),
            round_trips=self.client.info("stats")["total_reads_processed"],
        )

    def stop(self) -> None:
        """End the server."""
        self.client.close()
        self._server.terminate()
        self._server.wait()

    def forget_peak(self) -> None:
        """Let `peak_bytes` begin from now."""
        self.client.config_resetstat()

    def peak_bytes(self) -> float:
        """Return the most memory it has used."""
        return float(self.client.info("memory")["used_memory_peak"])

    def _answers(self) -> bool:
        import redis

        try:
            return bool(self.client.ping())
        except redis.exceptions.ConnectionError:
            return False


class Folder(Place):
    """A fresh folder on the disk that TMPDIR names."""

    def __init__(self) -> None:
        """Make it."""
        self._folder = Path(tempfile.mkdtemp(prefix="queue-"))
        self.address = str(self._folder / "queue.db")

    def usage(self) -> Usage:
        return Usage(size_bytes=sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file()))


def sync_us() -> float:
    """Return the microseconds that the disk under TMPDIR takes to keep 100 bytes for good (median)."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(100):
            before = time.perf_counter()
            os.write(file.fileno(), bytes(100))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    return sorted(times)[50] * 1e6

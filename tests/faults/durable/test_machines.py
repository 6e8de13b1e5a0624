"""Several machines: three workers, a client and Redis, each with an address of its own; one dies, one is cut off.

    client ─┐                         ┌─ worker 1    stays
            ├── switch ── redis ──────┼─ worker 2    is killed, daemon and children at once
    (4th)  ─┘                         └─ worker 3    is cut off past its lease, then heals

The machines are network namespaces with a virtual cable each to a bridge. Where those are not allowed that test says so
and is skipped; the same play with three isolated processes behind three proxies runs everywhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Self

import pytest

from taskq.states import TERMINAL
from tests.faults.durable.fleet import QUICK, Excuse, Fleet, check, wait_for_starts
from tests.proxy import Proxy
from tests.redis_server import RedisServer
from tests.scripts import Script
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from taskq import Job
    from tests.ledger import Ledger

#: Jobs of the play, and how many have started when the faults come.
JOBS, BEGUN = 400, 90

#: What the client's machine runs: submit, print the ids, wait for all results.
CLIENT = """
import sys
from taskq import TaskQueue
from tests.sample_tasks import note_and_nap

with TaskQueue(sys.argv[1]) as queue:
    jobs = queue.submit_many(note_and_nap, [(sys.argv[2], number, 0.02) for number in range(int(sys.argv[3]))])
    print("ids", *(job.id for job in jobs), flush=True)
    print("results", *(job.result(timeout=50) for job in jobs), flush=True)
"""


def ip(*words: str) -> None:
    """Run `ip` with these words."""
    subprocess.run([IP or "ip", *words], check=True, capture_output=True, text=True)


IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Machine:
    """A network namespace with an address, at the end of a cable to the switch."""

    def __init__(self, network: Network, number: int) -> None:
        self.name = f"{network.name}-{number}"
        self.address = f"10.213.7.{number}"
        self._network = network
        self._plug = f"v{os.getpid()}-{number}"
        ip("netns", "add", self.name)
        network.namespaces.append(self.name)
        ip("-n", network.switch, "link", "add", self._plug, "type", "veth", "peer", "eth0", "netns", self.name)
        ip("-n", network.switch, "link", "set", self._plug, "master", "bridge", "up")
        ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.name, "link", "set", device, "up")

    @property
    def prefix(self) -> list[str]:
        """Return the command behind which a program runs on this machine."""
        return [str(IP), "netns", "exec", self.name]

    def unplug(self) -> None:
        """Pull the cable at the switch: packets vanish, and nobody is told."""
        ip("-n", self._network.switch, "link", "set", self._plug, "down")

    def plug_in(self) -> None:
        """Put it back."""
        ip("-n", self._network.switch, "link", "set", self._plug, "up")


class Network:
    """Machines on one switch."""

    def __init__(self) -> None:
        self.name = f"tq{os.getpid()}"
        self.switch = f"{self.name}-switch"
        self.namespaces: list[str] = []

    def __enter__(self) -> Self:
        ip("netns", "add", self.switch)
        self.namespaces.append(self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self.namespaces:
            ip("netns", "del", self.namespaces.pop())


@pytest.fixture
def network() -> Iterator[Network]:
    """Give a network of machines, or say why there can be none."""
    if IP is None:
        pytest.skip("there is no `ip` (iproute2) to make network namespaces with: only the proxies' play was run")
    found = Network()
    try:
        found.__enter__()
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no right to make network namespaces ({exc.stderr.strip()}): only the proxies' play was run")
    try:
        yield found
    finally:
        found.__exit__(None, None, None)


def play(
    fleet: Fleet, script: Script, ledger: Ledger, cut: Callable[[], None], heal: Callable[[], None]
) -> list[Job[object]]:
    """Kill worker 2 and cut worker 3 off in the middle of the work, heal it, and account for every job."""
    _stays, dies, lonely = fleet.workers
    ids = script.wait_for_line("ids ").split()
    jobs = [fleet.queue.job(job_id) for job_id in ids]
    wait_for_starts(ledger, BEGUN)
    pids = fleet.pids(dies), fleet.pids(lonely)
    dies.kill_machine()
    cut()
    records = fleet.records(ids)
    unfinished = frozenset(found.id for found in records if found is not None and found.state not in TERMINAL)
    assert None not in records, "accepted jobs are gone"
    time.sleep(5)  # the fault itself: longer than the lease
    heal()
    assert script.wait_for_line("results ").split() == [str(number) for number in range(len(ids))]
    assert script.wait() == 0
    doubled = check(jobs, ledger, [Excuse(pids=hit, open=unfinished) for hit in pids])
    print(f"{len(jobs)} jobs, 0 lost, {doubled} ran again, all of them in the hands of the dead or the lonely worker")
    assert len(jobs) == JOBS
    eventually(lambda: (found := lonely.record()) is not None and found.running == 0, "the healed one to be idle")
    assert lonely.is_running
    return jobs


def test_machines(network: Network, tmp_path: Path, ledger: Ledger, make_fleet: Callable[..., Fleet]) -> None:
    """Three machines work for a fourth: one dies, one is cut off and heals; none is lost, all doubles explained."""
    store, client, *hosts = (Machine(network, number) for number in range(1, 6))
    socket = tmp_path / "s"
    options = ("--unixsocket", str(socket))
    with RedisServer(tmp_path / "redis", host=store.address, prefix=store.prefix, options=options) as server:
        fleet = make_fleet(f"unix://{socket}{QUICK}")
        url = server.url(query=QUICK)
        for host in hosts:
            fleet.start(url, prefix=host.prefix, name=host.name)
        with Script(tmp_path, CLIENT, url, ledger.path, JOBS, prefix=client.prefix) as script:
            play(fleet, script, ledger, hosts[2].unplug, hosts[2].plug_in)
        fleet.close()


def test_isolated_processes(
    tmp_path: Path, ledger: Ledger, redis_server: RedisServer, make_fleet: Callable[..., Fleet]
) -> None:
    """The same with three workers behind a proxy each, for where there are no namespaces."""
    database = redis_server.fresh_database()
    fleet = make_fleet(redis_server.url(database, QUICK))
    proxies = [Proxy((redis_server.host, redis_server.port)) for _ in range(3)]
    for proxy in proxies:
        proxy.start()
        fleet.start(f"redis://{proxy.host}:{proxy.port}/{database}{QUICK}")
    try:
        with Script(tmp_path, CLIENT, fleet.url, ledger.path, JOBS) as script:
            play(fleet, script, ledger, proxies[2].freeze, proxies[2].heal)
    finally:
        fleet.close()
        for proxy in proxies:
            proxy.__exit__(None, None, None)

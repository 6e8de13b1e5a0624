"""The network between clients, workers and Redis: lost replies (row 11), cuts one way and both (row 12), delays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq import Retry, TaskQueue
from tests.faults.durable.fleet import PATIENCE, QUICK, check, wait_for_starts
from tests.proxy import Proxy
from tests.sample_tasks import fail_until, hold_and_sign, note_and_nap, square
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger
    from tests.redis_server import RedisServer


class Network:
    """One Redis database, and proxies in front of it: a way of its own for each who wants one."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._database = server.fresh_database()
        self.url = server.url(self._database, QUICK)
        self._proxies: list[Proxy] = []

    def way(self) -> tuple[Proxy, str]:
        """Return a new proxy, and the URL that leads through it."""
        proxy = Proxy((self._server.host, self._server.port))
        proxy.start()
        self._proxies.append(proxy)
        return proxy, f"redis://{proxy.host}:{proxy.port}/{self._database}{QUICK}"

    def heal(self) -> None:
        """Take back what the proxies do."""
        for proxy in self._proxies:
            proxy.heal()

    def close(self) -> None:
        """End the proxies."""
        while self._proxies:
            self._proxies.pop().__exit__(None, None, None)


@pytest.fixture
def network(redis_server: RedisServer) -> Iterator[Network]:
    """Give a network with faults."""
    found = Network(redis_server)
    yield found
    found.close()


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet], network: Network) -> Iterator[Fleet]:
    """Give a fleet on that network; its own client goes straight."""
    yield make_fleet(network.url)
    network.heal()


# --- lost replies


def test_lost_replies_of_a_client(fleet: Fleet, network: Network, ledger: Ledger) -> None:
    """A submit whose reply is lost is sent again and is one job: none is doubled, whatever the way of submitting."""
    proxy, url = network.way()
    fleet.start()
    with TaskQueue(url) as queue:
        jobs: list[Any] = []
        for number in range(20):
            proxy.drop_replies(1, b"EVALSHA")
            jobs.append(queue.submit(note_and_nap, ledger.path, number, 0.0))
        proxy.drop_replies(1, b"EVALSHA")
        jobs += queue.submit_many(note_and_nap, [(ledger.path, number, 0.0) for number in range(20, 60)])
        check(jobs, ledger)
        assert proxy.dropped >= 20
    assert set(ledger.counts().values()) == {1}


def test_lost_replies_of_a_worker(fleet: Fleet, network: Network, ledger: Ledger) -> None:
    """Whatever a worker sends, a lost reply makes it send it again: claims, ends, retries; nothing runs twice."""
    proxy, url = network.way()
    worker = fleet.start(url)
    jobs = fleet.submit(ledger, 250, 0.01)
    flaky = fleet.queue.options(retry=Retry(3, delay=0.05)).submit(fail_until, "/dev/null", 3)
    while proxy.dropped < 12 and not all(job.done() for job in jobs):
        proxy.drop_replies(1)
        eventually(lambda: not proxy.drops_left or all(job.done() for job in jobs), "a reply to be lost")
    check(jobs, ledger)
    assert flaky.result(timeout=PATIENCE) == 3
    assert proxy.dropped >= 8, "hardly anything was lost"
    assert set(ledger.counts().values()) == {1}
    assert worker.is_running


# --- cuts


@pytest.mark.parametrize("way", ["closed", "silent", "silent up", "silent down"])
def test_cut_worker(fleet: Fleet, network: Network, ledger: Ledger, gate: Gate, way: str) -> None:
    """The jobs of a worker that is cut off run elsewhere; when it is back, its outcomes are refused, and it works."""
    proxy, url = network.way()
    lonely = fleet.start(url)
    job = fleet.queue.submit(hold_and_sign, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    other = fleet.start()
    if way == "closed":
        proxy.cut()
    else:
        proxy.freeze(up=way != "silent down", down=way != "silent up")
    eventually(lambda: ledger.counts()["start"] == 2, "the job to start elsewhere")
    gate.open()
    signature = job.result(timeout=PATIENCE)
    proxy.heal()
    assert signature in fleet.pids(other)
    eventually(lambda: (found := lonely.record()) is not None and found.running == 0, "the lonely one to be back")
    assert fleet.queue.job(job.id).result(timeout=PATIENCE) == signature
    other.stop()
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9, "the healed worker takes no jobs"


@pytest.mark.parametrize("way", ["closed", "silent"])
def test_cut_under_load(fleet: Fleet, network: Network, ledger: Ledger, way: str) -> None:
    """A cut in the middle of the work loses nothing, and only what was under way beyond it may run again."""
    proxy, url = network.way()
    lonely, _other = fleet.start(url), fleet.start()
    jobs = fleet.submit(ledger, 300)
    wait_for_starts(ledger, 60)
    pids = fleet.pids(lonely)
    proxy.cut() if way == "closed" else proxy.freeze()
    excuse = fleet.excuse(pids, jobs)
    time.sleep(4)  # the fault itself: longer than the lease
    proxy.heal()
    assert check(jobs, ledger, [excuse]) <= 20


def test_short_cut(fleet: Fleet, network: Network, ledger: Ledger, gate: Gate) -> None:
    """After a cut shorter than the lease the worker goes on with what it holds, and nothing runs twice."""
    proxy, url = network.way()
    fleet.start(url)
    job = fleet.queue.submit(hold_and_sign, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    proxy.reset()
    gate.open()
    assert job.result(timeout=PATIENCE) in ledger.pids("start")
    assert ledger.counts() == {"start": 1, "end": 1}


@pytest.mark.parametrize("way", ["closed", "silent"])
def test_cut_client(fleet: Fleet, network: Network, gate: Gate, way: str) -> None:
    """A client that is cut off while it waits gets its result when the network is back."""
    proxy, url = network.way()
    fleet.start()
    with TaskQueue(url) as queue:
        job = queue.submit(hold_and_sign, gate.path, "/dev/null")
        with pytest.raises(TimeoutError):
            job.result(timeout=0.3)
        proxy.cut() if way == "closed" else proxy.freeze()
        gate.open()
        eventually(lambda: fleet.has_ended(job.id), "the job to end")
        proxy.heal()
        assert isinstance(job.result(timeout=PATIENCE), int)


def test_slow_network(fleet: Fleet, network: Network, ledger: Ledger) -> None:
    """With 50 ms each way, everything works, and nothing is taken for dead."""
    proxy, url = network.way()
    proxy.delay(0.05)
    fleet.start(url)
    fleet.start(url)
    jobs = fleet.submit(ledger, 40, 0.01)
    check(jobs, ledger)
    assert set(ledger.counts().values()) == {1}
    with TaskQueue(url) as queue:
        assert list(queue.map(square, range(500))) == [number**2 for number in range(500)]

"""Two workers in processes of their own hammer one file while a third process submits: a ledger counts."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import TERMINAL, State
from tests.store_steps import hear, job, said, worker
from tests.subscriber import Subscriber
from tests.waiting import eventually

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

KILLS = 25


def submit(url: str, ledger: str, enough: Event) -> None:
    """Submit jobs one by one and in bunches until it is enough, and note each one that was accepted."""
    store = SQLiteStore(url)
    updates = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    number = 0
    while not enough.wait(0.005):
        batch = [f"j{index}" for index in range(number, number + random.choice((1, 1, 2, 20)))]
        store.put([job(name, queue=random.choice(("high", "default")), max_crashes=100) for name in batch])
        os.write(updates, "".join(f"put {name}\n" for name in batch).encode())
        number += len(batch)
    store.close()


def work(url: str, name: str, ledger: str) -> None:
    """Run jobs until killed; note each run."""
    store = SQLiteStore(url)
    updates = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    member = store.join(worker(name, ("high", "default")))
    outcomes: list[Any] = []
    while True:
        member.run_maintenance()
        found = member.poll(outcomes, [], random.randint(1, 30))
        done = {outcome.id for outcome in outcomes if outcome.state is State.SUCCEEDED}
        os.write(updates, "".join(f"end {name}\n" for name in done - {*found.fenced}).encode())
        outcomes = [said(one) if one.attempt % 3 else said(one, State.SCHEDULED) for one in found.claims]
        os.write(updates, "".join(f"run {one.id}\n" for one in found.claims).encode())
        if not outcomes:
            member.wait(1.0, -1)


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_hammer(path: Path, durability: str) -> None:
    """Nothing is lost and nothing ends twice, though workers are killed all the time; the file stays whole."""
    url = f"sqlite://{path}?durability={durability}"
    ledger = str(path.parent.parent / "ledger")
    store = SQLiteStore(url)
    context = multiprocessing.get_context("fork")
    enough = context.Event()
    client = context.Process(target=submit, args=(url, ledger, enough))
    workers = [context.Process(target=work, args=(url, f"w{number}", ledger)) for number in range(2)]
    for process in (client, *workers):
        process.start()
    for kills in range(KILLS):
        time.sleep(0.03)
        victim = random.randrange(2)
        workers[victim].kill()
        workers[victim].join()
        workers[victim] = context.Process(target=work, args=(url, f"k{kills}", ledger))
        workers[victim].start()
    enough.set()
    client.join()
    eventually(lambda: not _unfinished(store), "all jobs to end")
    for process in workers:
        process.kill()
        process.join()
    with open(ledger, encoding="utf-8") as file:
        lines = Counter(file.read().split("\n"))
    accepted = {line[4:] for line in lines if line.startswith("put ")}
    assert accepted
    ended = {record.id for record in store.list(states={State.SUCCEEDED}, limit=100_000)}
    assert accepted <= ended
    assert {line[4:] for line in lines if line.startswith("end ")} <= ended
    assert max(count for line, count in lines.items() if line.startswith("end ")) == 1
    assert store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    store.close()


def _unfinished(store: SQLiteStore) -> int:
    return sum(count for queue in store.queues() for state, count in queue.counts.items() if state not in TERMINAL)


def test_round_trip(path: Path) -> None:
    """A job that is submitted here and run by a worker in another process is heard of at once, again and again."""
    url = f"sqlite://{path}?durability=normal"
    store = SQLiteStore(url)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=work, args=(url, "w", str(path.parent.parent / "ledger")))
    process.start()
    subscription = Subscriber(store.subscribe())
    times = []
    for number in range(30):
        begin = time.monotonic()
        store.put([job(f"j{number}")], reply_to=subscription.reply_to)
        subscription.expect([f"j{number}"])
        assert hear(subscription, 1)
        times.append(time.monotonic() - begin)
    assert sorted(times)[15] < 0.5  # a lost wake-up would cost a second
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    subscription.close()
    store.close()

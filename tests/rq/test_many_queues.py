"""Names of queues cost whoever makes them nothing: looking at them is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.rq.store import RQStore
    from tests.rq.hands import Hands


def make_names(client: Any, names: range) -> None:
    """Have a job id in each of so many queues."""
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.sadd("rq:queues", f"rq:queue:q{name:06}")
            pipe.rpush(f"rq:queue:q{name:06}", f"job-{name}")
        pipe.execute()


def commands_of(client: Any, look: Callable[[], object]) -> int:
    """Return how many commands the server is given by a look."""
    before = client.info("stats")["total_commands_processed"]
    look()
    return int(client.info("stats")["total_commands_processed"]) - before


def test_a_look_costs_no_more_for_more_names(store: RQStore, client: Any) -> None:
    """What `status`, `doctor` and `top` ask for is the same for 4,000 names and for 12,000."""

    def look() -> None:
        store.some_queues(500)
        store.list(limit=10)

    make_names(client, range(4_000))
    few = commands_of(client, look)
    make_names(client, range(4_000, 12_000))
    assert commands_of(client, look) < few * 1.5


def test_what_is_left_out_is_counted(store: RQStore, client: Any, join: Callable[..., Hands]) -> None:
    """Queues that are asked for, paused or served come before others; all are there for who wants them."""
    make_names(client, range(3_000))
    store.pause("q002998")
    join(queues=("q002997",))
    found, more = store.some_queues(100, ("q002999",))
    names = [record.name for record in found]
    assert len(names) == 100
    assert names[-3:] == ["q002997", "q002998", "q002999"]
    assert names == sorted(names)
    assert more == 2_900
    assert len(store.queues()) == 3_000
    assert all(record.counts[State.QUEUED] == 1 for record in store.queues())

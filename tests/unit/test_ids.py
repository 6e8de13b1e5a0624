"""Ids: unique, ascending, and with the time in front."""

from __future__ import annotations

import itertools
import os
import threading
import time

from taskq import ids
from taskq.ids import new_id, time_of
from taskq.options import JobOptions


def test_shape() -> None:
    """An id is 26 characters of Crockford's base 32, and may stand as the option `job_id`."""
    job_id = new_id()
    assert len(job_id) == 26
    assert set(job_id) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert JobOptions(job_id=job_id).job_id == job_id


def test_each_is_greater_than_the_last() -> None:
    """Ids of one process sort by the order in which they were made, all of them different."""
    made = [new_id() for _ in range(100_000)]
    assert made == sorted(set(made))


def test_time() -> None:
    """The first characters of an id tell when it was made, to the millisecond."""
    before = time.time()
    made = time_of(new_id())
    assert made is not None
    assert before - 0.01 <= made <= time.time() + 0.01


def test_time_of_other_texts() -> None:
    """An id that users chose has no time in it."""
    assert [time_of(text) for text in ("", "order-4711", "I" * 26, "0" * 25)] == [None] * 4


def test_clock_that_is_set_back() -> None:
    """Ids go on to ascend when the clock does not."""
    source = ids.Source()
    first = source.next()
    source.now = ids.Moment(source.now.ms + 3_600_000)
    assert first < source.next() < source.next()


def test_more_in_a_millisecond_than_it_counts() -> None:
    """When a millisecond's count is full, the ids go on in the next one."""
    source = ids.Source()
    first = source.next()
    source.now.count = itertools.count(ids.LAST)
    made = [first, *(source.next() for _ in range(3))]
    assert made == sorted(set(made))


def test_threads() -> None:
    """Threads that make ids at the same time never get the same one."""
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda mine: mine.extend(new_id() for _ in range(20_000)), args=(mine,))
        for mine in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set().union(*made)) == 80_000
    assert all(mine == sorted(mine) for mine in made)


def test_forked_process_makes_its_own() -> None:
    """Parent and child go on with different ids, also within the same millisecond."""
    reader, writer = os.pipe()
    new_id()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    mine = {new_id() for _ in range(100)}
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    theirs = {text[start : start + 26] for start in range(0, len(text), 26)}
    assert len(theirs) == 100
    assert mine.isdisjoint(theirs)

"""The book of who waits for which job: what is asked for, what is told, what is lost."""

from __future__ import annotations

import sys
import threading

import pytest

from taskq import wait_book
from taskq.failure import Failure
from taskq.states import Reason, State
from taskq.store import Ended, JobRecord, News
from taskq.wait_book import WaitBook, ended_of


class Clock:
    """Time as a test says."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock by which books look."""
    made = Clock()
    monkeypatch.setattr(wait_book, "monotonic", made)
    return made


@pytest.fixture
def book() -> WaitBook[str]:
    """Give an empty book."""
    return WaitBook()


def ended(job_id: str) -> Ended:
    """Return the end of a job."""
    return Ended(id=job_id, state=State.SUCCEEDED, result=b"")


def ids(ends: list[Ended]) -> list[str]:
    """Return whose ends these are."""
    return [end.id for end in ends]


def test_a_job_is_asked_for_once_when_somebody_begins_to_wait(book: WaitBook[str], clock: Clock) -> None:
    """A job that was not put here is asked for at once, and not again while there is news."""
    assert book.add("a", "waiter")
    assert book.due(10) == ["a"]
    assert book.due(10) == []
    assert book.take(News(waiting=["a"])) == []
    clock.now += 0.9
    assert book.due(10) == []
    assert (book.waiters, book.ids()) == ({"a": "waiter"}, ["a"])


def test_own_jobs_are_not_asked_for(book: WaitBook[str], clock: Clock) -> None:
    """The end of a job that is put with our address is told: nothing is asked before a second without news."""
    book.announce(["a", "b"])
    assert not book.add("a", "waiter")
    book.add_new([("new", "waiter")])
    assert book.due(10) == []
    assert ids(book.take(News(ended=[ended("a")]))) == ["a"]


def test_own_jobs_that_have_ended_are_asked_for(book: WaitBook[str], clock: Clock) -> None:
    """An own job whose end was told before somebody waits is asked for: nobody has kept its outcome."""
    book.announce(["small", "large"])
    assert ids(book.take(News(ended=[ended("small")], unread=["large"]))) == ["small"]
    assert book.due(10) == []
    assert book.add("small", "waiter")
    assert book.add("large", "waiter")
    assert book.due(10) == ["small", "large"]


def test_outcomes_that_did_not_come_with_the_news(book: WaitBook[str], clock: Clock) -> None:
    """An outcome that is too large for the news is asked for where somebody waits."""
    book.announce(["a"])
    book.add("a", "waiter")
    assert book.take(News(unread=["a", "nobody's"])) == []
    assert book.patience() == 0.0
    assert book.due(10) == ["a"]


def test_what_nobody_waits_for_is_told_all_the_same(book: WaitBook[str], clock: Clock) -> None:
    """Ends of jobs that nobody waits for come out: somebody may hold their handles."""
    assert ids(book.take(News(ended=[ended("a")]))) == ["a"]


def test_some_are_asked_for_after_a_second_without_news(book: WaitBook[str], clock: Clock) -> None:
    """News can be lost: each second without any, some jobs are asked for, all of them in turn."""
    book.announce(map(str, range(100)))
    for number in range(100):
        book.add(str(number), "waiter")
    assert 0.0 < book.patience() <= wait_book.LOOK_EVERY
    seen: set[str] = set()
    for _ in range(1000):
        clock.now += wait_book.LOOK_EVERY
        assert book.patience() == 0.0
        some = book.due(10)
        assert len(some) == len(set(some)) == 10
        assert book.due(10) == []
        seen.update(some)
    assert len(seen) == 100


def test_news_put_off_the_look_for_a_while_only(book: WaitBook[str], clock: Clock) -> None:
    """While there is news nothing is asked for, but for a look now and then: what is lost may be another's news."""
    book.announce(["a"])
    book.add("a", "waiter")
    clock.now += wait_book.LOOK_EVERY
    assert book.due(10) == ["a"]
    looks = 0
    for _ in range(100):
        clock.now += wait_book.LOOK_EVERY / 2
        book.take(News(ended=[ended("another")]))
        looks += bool(book.due(10))
    assert 1 <= looks <= 50 * wait_book.LOOK_EVERY / wait_book.LOOK_AT_LEAST + 1


def test_a_missing_job_is_lost_at_the_second_look(book: WaitBook[str], clock: Clock) -> None:
    """A job that is missing is asked for first at the next look, and lost when it is still missing then."""
    for number in range(100):
        book.add(str(number), "waiter")
    book.due(10)
    assert book.take(News(missing=["7"], waiting=["8"])) == []
    assert book.take(News(missing=["7"])) == [], "asked twice at once"
    clock.now += wait_book.LOOK_EVERY
    assert book.due(10)[0] == "7"
    (end,) = book.take(News(missing=["7"]))
    assert end.failure is not None
    assert (end.id, end.state, end.failure.reason) == ("7", State.FAILED, Reason.LOST)


def test_a_job_that_was_missing_and_is_there_is_not_lost(book: WaitBook[str], clock: Clock) -> None:
    """A job that was seen between two looks that missed it is not lost."""
    book.add("a", "waiter")
    assert book.take(News(missing=["a"])) == []
    clock.now += wait_book.LOOK_EVERY
    assert book.take(News(waiting=["a"])) == []
    clock.now += wait_book.LOOK_EVERY
    assert book.take(News(missing=["a"])) == []


def test_missing_jobs_that_nobody_waits_for_are_not_told(book: WaitBook[str], clock: Clock) -> None:
    """What is missing and not waited for any more is no news, and nothing is kept of it."""
    book.add("a", "waiter")
    book.take(News(missing=["a"]))
    assert book.discard("a")
    assert not book.discard("a")
    clock.now += wait_book.LOOK_EVERY
    assert book.take(News(missing=["a"])) == []
    assert not book.waiters
    assert book.due(10) == []


def test_all_is_asked_for_again_when_news_may_be_lost(book: WaitBook[str], clock: Clock) -> None:
    """After an absence all that is waited for is asked for, and no job counts as one whose end will be told."""
    book.announce(["a", "b"])
    book.add("a", "waiter")
    assert book.take(News(renewed=True)) == []
    assert book.due(10) == ["a"]
    assert book.add("b", "waiter")


def test_all_is_lost_with_its_store(book: WaitBook[str], clock: Clock) -> None:
    """Where the store is gone, all that is waited for is lost, and says why."""
    book.add("a", "waiter")
    (end,) = book.take(News(gone="no such file"))
    assert end.failure is not None
    assert (end.failure.reason, end.failure.message) == (Reason.LOST, "no such file")


def test_the_book_is_bounded(book: WaitBook[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that nobody waits for are forgotten, the oldest first; who waits for one then asks."""
    monkeypatch.setattr(wait_book, "OWN_MAX", 100)
    for number in range(1_000):
        book.announce([str(number)])
    assert len(book.own) <= 120
    assert book.add("1", "waiter")
    assert not book.add("999", "waiter")


def test_an_end_that_is_told_while_somebody_begins_to_wait(book: WaitBook[str]) -> None:
    """Of an end that comes while a thread begins to wait, either the waiter hears or it is asked for."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(2_000):
            job_id = str(number)
            book.announce([job_id])
            told: list[str | None] = []
            asked: list[bool] = []
            both = threading.Barrier(2)

            def tell(job_id: str = job_id, told: list[str | None] = told, both: threading.Barrier = both) -> None:
                both.wait()
                told.extend(book.waiters.get(end.id) for end in book.take(News(ended=[ended(job_id)])))

            thread = threading.Thread(target=tell)
            thread.start()
            both.wait()
            asked.append(book.add(job_id, "waiter"))
            thread.join()
            assert told == ["waiter"] or asked == [True]
            book.discard(job_id)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_an_end_is_what_the_record_says(state: State) -> None:
    """A job's end is made of its record, field by field; of none it is lost."""
    failure = Failure.from_exception(ValueError("no")) if state is State.FAILED else None
    record = JobRecord(id="a", task="t", state=state, result=b"r", failure=failure, attempts=2, crashes=1)
    end = ended_of("a", record)
    assert (end.id, end.state, end.result, end.failure, end.attempts, end.crashes) == ("a", state, b"r", failure, 2, 1)
    lost = ended_of("a", None).failure
    assert lost is not None
    assert lost.reason is Reason.LOST

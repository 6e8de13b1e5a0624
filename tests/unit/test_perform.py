"""The execution of envelopes: calls, chunks and single items run, and what they raise is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taskq import context, current_job, envelope, perform, runner
from taskq.chunks import read_chunk
from taskq.codec import decode, encode
from taskq.context import JobContext
from taskq.envelope import CALL, CHUNK, Template
from taskq.errors import DecodeError, EncodeError, NotInJob
from taskq.failure import Failure
from taskq.options import JobOptions
from tests.sample_tasks import job_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = "tests.sample_tasks"
PLAIN = JobOptions()


@pytest.fixture(autouse=True)
def trusted() -> Iterator[None]:
    """Allow the tests' tasks, as a child of a worker does."""
    perform.allow([TASKS, "builtins:abs", "builtins:len", __name__])
    yield
    perform.allow([])
    perform.disallow()


def call(task: str, *args: Any, options: JobOptions = PLAIN, **kwargs: Any) -> bytes:
    """Return the envelope of a call."""
    return Template(CALL, task, options).pack(encode(list(args)), encode(kwargs))


def chunk(task: str, items: list[Any], shape: Any = False) -> bytes:
    """Return the envelope of a chunk."""
    return Template(CHUNK, task, PLAIN).pack(encode(items), encode(shape))


def test_call() -> None:
    """A call gives its value as codec bytes; in a stock worker, the value itself."""
    data = call(f"{TASKS}:capture", 1, (2,), three={3})
    expected = ((1, (2,)), {"three": {3}})
    assert decode(perform.perform_call(data, "j", 1)) == expected
    assert perform.perform(data) == expected


def test_errors_of_a_task_are_raised() -> None:
    """What a task raises, its call raises."""
    with pytest.raises(ZeroDivisionError):
        perform.perform_call(call(f"{TASKS}:divide", 1, 0), "j", 1)


def test_coroutine_function() -> None:
    """An async task runs to its end, on a loop that is kept."""
    try:
        loops = [decode(perform.perform_call(call(f"{TASKS}:running_loop"), "j", 1)) for _ in range(2)]
        assert decode(perform.perform_call(call(f"{TASKS}:add_slowly", 1, 2), "j", 1)) == 3
    finally:
        runner.close_loop()
    assert all("Loop" in name for name in loops)


def test_current_job() -> None:
    """The job that runs is the one of the store, and nobody's when it has ended."""
    assert decode(perform.perform_call(call(f"{TASKS}:job_facts"), "of-the-store", 3)) == ("of-the-store", 3)
    assert perform.perform(call(f"{TASKS}:job_facts"), "of-rq") == ("of-rq", 1)
    with pytest.raises(NotInJob):
        current_job()


def test_current_job_in_a_pool() -> None:
    """What the job says goes where the pool's own job would send it, and the pool's context is back afterwards."""

    class Recorder:
        def __init__(self) -> None:
            self.told: list[tuple[int, int, int | None]] = []

        def progress(self, number: int, done: int, total: int | None) -> None:
            self.told.append((number, done, total))

        def is_cancelled(self, number: int) -> bool:
            return number == 7

    recorder: Any = Recorder()
    context.provide(lambda: JobContext("of-the-pool", 1, 7, recorder))
    try:
        assert decode(perform.perform_call(call(f"{__name__}:report_here"), "j", 2)) == ["j", 2, True]
        assert current_job().id == "of-the-pool"
        with pytest.raises(ZeroDivisionError):
            perform.perform_call(call(f"{TASKS}:divide", 1, 0), "j", 1)
        assert job_facts() == ("of-the-pool", 1)
    finally:
        context.provide(None)
    assert recorder.told == [(7, 1, 2)]


def report_here() -> list[Any]:
    """Say something as the current job."""
    job = current_job()
    job.progress(1, 2)
    return [job.id, job.attempt, job.cancelled]


def test_results_of_other_jobs() -> None:
    """A job among the arguments is replaced by its result; each place has one of its own."""
    references = encode([[_Ref()], [_Ref()]], refer=lambda value: "other" if isinstance(value, _Ref) else None)
    data = Template(CALL, f"{TASKS}:identity", PLAIN).pack(b"\x91" + references, b"\x80")
    results = envelope.pack_results({"other": encode([1, 2])})
    assert decode(perform.perform_call(data, "j", 1, results)) == [[[1, 2]], [[1, 2]]]
    with pytest.raises(DecodeError, match="result of job other"):
        perform.perform_call(data, "j", 1)


class _Ref:
    """Stand in for a job."""


def test_undecodable_arguments() -> None:
    """Arguments that cannot be read, or are none, are a DecodeError."""
    template = Template(CALL, f"{TASKS}:square", PLAIN)
    for args, kwargs in ((b"\xc1", b"\x80"), (b"\x80", b"\x80"), (b"\x90", b"\x90"), (b"", b"")):
        with pytest.raises(DecodeError):
            perform.perform_call(template.pack(args, kwargs), "j", 1)


def test_result_that_cannot_travel() -> None:
    """A result that no store could hold is an EncodeError with its path."""
    with pytest.raises(EncodeError) as raised:
        perform.perform_call(call("tests.sample_tasks:make_thing", 1), "j", 1)
    assert raised.value.path == "result"


def test_result_that_is_too_large() -> None:
    """So is one above the limit, which can be set."""
    data = call(f"{TASKS}:zeros", 2_000_000)
    with pytest.raises(EncodeError, match=r"2,000,005 bytes, above the limit of 1,048,576"):
        perform.perform_call(data, "j", 1)
    perform.allow([TASKS], max_bytes=3_000_000)
    assert len(perform.perform_call(data, "j", 1)) == 2_000_005


# --- chunks


def test_items_have_ids_of_their_own() -> None:
    """`current_job()` names each item of a chunk by the chunk's id and its index, whichever way it is run."""
    data = chunk(f"{TASKS}:facts_of_item", [7, 8, 9])
    assert results_of(data, 3) == [("j.0", 1), ("j.1", 1), ("j.2", 1)]
    assert decode(perform.perform_item(chunk(f"{TASKS}:facts_of_item", [9]), 2, "j", 1)) == ("j.2", 1)


def results_of(data: bytes, count: int) -> list[Any]:
    """Run a chunk and return its values, or failures in their places."""
    _, values, records = read_chunk(perform.perform_chunk(data, "j", 1), count)
    if values is not None:
        return values
    return [entry if isinstance(entry, Failure) else decode(entry) for entry in records or ()]


def test_chunk() -> None:
    """Every item gives its value."""
    assert results_of(chunk(f"{TASKS}:square", [1, 2, 3]), 3) == [1, 4, 9]
    assert results_of(chunk(f"{TASKS}:add", [(1, 2), [3, 4]], True), 2) == [3, 7]
    assert results_of(chunk(f"{TASKS}:add", [1, 2], [False, [10], {}]), 2) == [11, 12]
    assert results_of(chunk(f"{TASKS}:capture", [()], [True, [1], {"two": 2}]), 1) == [((1,), {"two": 2})]
    assert results_of(chunk(f"{TASKS}:square", []), 0) == []


def test_chunk_with_errors() -> None:
    """An item's error is in its record, the others have their values; also of those that end C loops."""
    results = results_of(chunk(f"{TASKS}:fail_at", [(3, number) for number in range(6)], True), 6)
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
    assert (results[3].type, results[3].message) == ("ValueError", "item 3 is bad")
    stopped = results_of(chunk(f"{TASKS}:stop_iteration", [1, 2, 3]), 3)
    assert [failure.type for failure in stopped] == ["StopIteration"] * 3


def test_chunk_with_results_that_cannot_travel() -> None:
    """An item whose result cannot travel, or is too large, fails alone."""
    (failure,) = results_of(chunk(f"{TASKS}:make_thing", [1]), 1)
    assert (failure.type, "Thing" in failure.message) == ("taskq.errors.EncodeError", True)
    small, large = results_of(chunk(f"{TASKS}:zeros", [3, 2_000_000]), 2)
    assert (small, large.type) == (b"\0\0\0", "taskq.errors.EncodeError")


def test_deep_items_and_results() -> None:
    """Items as deep as a single value may be travel in a chunk as well."""
    deep: Any = 0
    for _ in range(32):
        deep = [deep]
    data = Template(CHUNK, f"{TASKS}:identity", PLAIN).pack(encode([deep], max_depth=33), encode(False))
    assert results_of(data, 1) == [deep]


@pytest.mark.parametrize(
    ("items", "shape"), [({}, False), ([1], 5), ([1], None), ([1], [True]), ([1], [True, {}, {}]), ([1], [1, [], {}])]
)
def test_broken_chunks(items: Any, shape: Any) -> None:
    """A chunk without items, or that does not say what to do with them, is a DecodeError."""
    with pytest.raises(DecodeError):
        perform.perform_chunk(chunk(f"{TASKS}:square", items, shape), "j", 1)


def test_single_item() -> None:
    """One item of a chunk can be run alone, from a chunk of its own: its value, or what it raises."""
    two, three = (chunk(f"{TASKS}:fail_at", [(3, number)], True) for number in (2, 3))
    assert decode(perform.perform_item(two, 2, "j", 1)) == 2
    with pytest.raises(ValueError, match="item 3 is bad"):
        perform.perform_item(three, 3, "j", 1)
    for items in ([], [(3, 1), (3, 2)]):
        with pytest.raises(DecodeError):
            perform.perform_item(chunk(f"{TASKS}:fail_at", items, True), 0, "j", 1)


def test_chunk_in_a_stock_worker() -> None:
    """A stock worker gives the bytes of a chunk's records, as ours does."""
    found = perform.perform(chunk(f"{TASKS}:square", [1, 2, 3]))
    assert read_chunk(found, 3)[1] == [1, 4, 9]

"""What the items of a chunk came to, as the consumer of a map gets it: results, and errors to be raised among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from taskq.codec import decode
from taskq.errors import DecodeError, EncodeError
from taskq.executors.dependencies import jobs_in
from taskq.executors.map_stream import raisable
from taskq.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ItemError", "Raising", "Results", "error_of", "of_item", "result_of"]

#: The results of a chunk, its bytes, and whether errors to be raised stand among them.
Results: TypeAlias = "tuple[list[Any], int, bool]"


class ItemError:
    """Stands among the results where one is an error to be raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def of_item(index: int, item: Any, error: EncodeError) -> EncodeError:
    """Return the refusal of a single item, named by its place in the input."""
    if jobs_in(item):
        return EncodeError("a map does not wait for jobs: pass their results", f"items[{index}]")
    return EncodeError(error.problem, error.path.replace("items[0]", f"items[{index}]", 1))


def result_of(record: bytes | Failure, job_id: str) -> Any:
    """Return the value of a record, or its error."""
    if isinstance(record, Failure):
        return error_of(record, job_id)
    try:
        return decode(record)
    except DecodeError as error:
        return ItemError(error)


def error_of(failure: Failure, job_id: str) -> ItemError:
    """Return the error to be raised for a failure."""
    return ItemError(raisable(failure.to_exception(job_id)))


class Raising:
    """Yield results, and raise the errors among them at their places. Holds none that it has given."""

    def __init__(self, results: list[Any], index: int | None) -> None:
        self._results = list(results if index is None else enumerate(results, index))
        self._results.reverse()
        self._indexed = index is not None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __length_hint__(self) -> int:
        return len(self._results)

    def __next__(self) -> Any:
        try:
            result = self._results.pop()
        except IndexError:
            raise StopIteration from None
        entry = result[1] if self._indexed else result
        if type(entry) is ItemError:
            raise entry.error
        return result

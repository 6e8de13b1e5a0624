"""Tasks that ask to be run again."""

from __future__ import annotations

from pathlib import Path

from taskq import RetryLater, current_job
from taskq.failure import Failure
from tests.ledger import note


def ask_until(ledger: str, attempt: int, delay: float | str = 0.0, counted: bool = False) -> int:
    """Note each attempt and ask for another, until the attempt of this number."""
    note(ledger, "attempt")
    if current_job().attempt < attempt:
        raise RetryLater(delay, counted)
    return current_job().attempt


def do_in_turn(ledger: str, *steps: str) -> str:
    """Do one step in each attempt: "error", or ask for another, "counted" or "uncounted"; the last is the result."""
    step = steps[current_job().attempt - 1]
    note(ledger, step)
    if step == "error":
        raise OSError("try again")
    if step in {"counted", "uncounted"}:
        raise RetryLater(0, counted=step == "counted")
    return step


def ask_for_item_once(ledger: str, counted: bool, item: int) -> int:
    """Note the item; at the first attempt of one in four ask for another."""
    note(ledger, str(item))
    if item % 4 == 1 and Path(ledger).read_text(encoding="utf-8").count(f" {item}\n") == 1:
        raise RetryLater(0.01, counted)
    return item


def pass_on_the_wish_of_another(ledger: str) -> None:
    """Note the attempt and raise what `result()` of another job raises that has asked in vain."""
    note(ledger, "attempt")
    raise Failure.from_exception(RetryLater(0, counted=False)).to_exception()


class NotYet(RetryLater):
    """A wish of a class of its own."""

    def __init__(self, what: str) -> None:
        super().__init__("10ms", counted=False)
        self.add_note(what)


def ask_by_another_class(attempt: int) -> int:
    """Ask until the attempt of this number."""
    if current_job().attempt < attempt:
        raise NotYet("the file is not there") from FileNotFoundError(2, "nowhere")
    return current_job().attempt

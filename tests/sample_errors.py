"""Exceptions and values that are hard to carry from one process to another."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, NoReturn


class Plain(Exception):
    """An exception of the user's, as most are."""


class WithAttributes(Exception):
    """An exception that carries more than its text."""

    def __init__(self, code: int, detail: dict[str, Any]) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class OddConstructor(Exception):
    """An exception whose constructor takes other arguments than `args` holds, as many real ones do."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class KeywordOnly(Exception):
    """An exception that can only be built by keyword."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class HoldsLock(Exception):
    """An exception with an attribute that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class BrokenReduce(Exception):
    """An exception that refuses to be pickled, with an error of its own."""

    def __reduce__(self) -> NoReturn:
        """Refuse."""
        raise RuntimeError("no pickling here")


class KillsInReduce(Exception):
    """An exception whose pickling kills the process."""

    def __reduce__(self) -> NoReturn:
        """Kill."""
        os._exit(41)


class BrokenText(Exception):
    """An exception that has no text."""

    def __str__(self) -> str:
        """Refuse."""
        raise RuntimeError("no text here")


class FailsInLoading(Exception):
    """An exception whose pickle cannot be loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a call that raises."""
        return refuse, ("cannot be loaded",)


class ExitsInReduce(Exception):
    """An exception whose pickle exits when it is loaded; it has an attribute that only a pickle could carry."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.extra = Plain

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a call that exits."""
        return sys.exit, (3,)


class _Kills:
    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (44,)


class KillsInLoadingToo(Exception):
    """An exception with an attribute whose loading kills the process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.extra = _Kills()


class ExitsInText(Exception):
    """An exception whose text exits."""

    def __str__(self) -> str:
        """Exit."""
        raise SystemExit(4)


def raise_wide_group(members: int) -> None:
    """Raise a group of more members than are described."""
    raise ExceptionGroup("wide", [ValueError(number) for number in range(members)])


def raise_from_large(size: int) -> None:
    """Raise an exception whose cause has more in it than is described."""
    cause = WithAttributes(7, {"many": ["x" * 1000] * (size // 1000)})
    cause.more = cause.detail  # type: ignore[attr-defined]
    raise ValueError("small") from cause


class Unpicklable:
    """A value that cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        """Refuse."""
        raise TypeError("cannot pickle this")


class KillsInPickling:
    """A value whose pickling kills the process."""

    def __reduce__(self) -> NoReturn:
        """Kill."""
        os._exit(42)


class KillsInLoading:
    """A value whose loading kills the process."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a call that kills."""
        return os._exit, (43,)


class RaisesInLoading:
    """A value whose loading raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a call that raises."""
        return refuse, ("cannot be loaded",)


def refuse(text: str) -> None:
    """Raise."""
    raise ValueError(text)


def raise_odd(code: int, reason: str) -> None:
    """Raise an exception with an odd constructor."""
    raise OddConstructor(code, reason)


def raise_keyword_only(code: int) -> None:
    """Raise an exception that is built by keyword."""
    raise KeywordOnly(code=code)


def raise_group() -> None:
    """Raise a group of which one member has an odd constructor."""
    noted = ValueError("v")
    noted.add_note("noted")
    raise ExceptionGroup("several", [noted, OddConstructor(7, "strange")])


def raise_with_cause() -> None:
    """Raise an exception that has a cause."""
    try:
        refuse("the first of two")
    except ValueError as exc:
        raise Plain("the second of two") from exc


def return_unpicklable() -> Unpicklable:
    """Return what cannot be pickled."""
    return Unpicklable()


def return_unpicklable_deep() -> dict[str, Any]:
    """Return what cannot be pickled, hidden in plain values."""
    return {"rows": [1, {"bad": Unpicklable()}]}


def return_killing() -> KillsInPickling:
    """Return a value whose pickling kills the process."""
    return KillsInPickling()


def return_raising_in_loading() -> RaisesInLoading:
    """Return a value whose loading raises."""
    return RaisesInLoading()


def return_lock() -> Any:
    """Return a lock."""
    return threading.Lock()


def return_lambda() -> Any:
    """Return a lambda."""
    return lambda: None


def return_generator() -> Any:
    """Return a generator."""
    return (number for number in range(3))


def return_cycle() -> list[Any]:
    """Return a list that holds itself."""
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def return_exception() -> Plain:
    """Return an exception, as a value."""
    return Plain("a value")


def bad_at_three(item: int) -> Any:
    """Return the item, but at 3 what cannot travel."""
    return Unpicklable() if item == 3 else item

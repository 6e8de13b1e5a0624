"""An exception at any instruction of a call, as one that a signal handler raises.

    sites(call)               ──▶ the instructions that it goes through, in our own code and in the library's beside it
    interrupted(call, number) ──▶ the call with `Interrupt` raised at the number-th of them

A trace function sees each instruction of a Python function before it is done. What C functions do is not divided, as
signal handlers do not run within it.
"""

from __future__ import annotations

import concurrent.futures._base
import contextlib
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import taskq

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    Site = tuple[CodeType, int]

#: Where calls are interrupted: our code, and what of the standard library takes locks in its own code.
FOLDERS = (f"{Path(taskq.__file__).parent}/",)
FILES = frozenset(str(module.__file__) for module in (concurrent.futures._base, contextlib, threading, weakref))  # noqa: SLF001  # nothing public tells


class Interrupt(BaseException):
    """What a signal handler raises; nothing but the test may catch it."""


class Alarm(TimeoutError):
    """What an alarm's handler often raises: an OSError, which must not be taken for one of the system's."""


KINDS = (Interrupt, Alarm)


class _Tracer:
    def __init__(self, at: int = 0, kind: type[BaseException] = Interrupt) -> None:
        self.at = at
        self.kind = kind
        self.count = 0
        self.sites: list[Site] = []
        self.hit: Site | None = None

    def enter(self, frame: FrameType, _event: str, _arg: object) -> Any:
        name = frame.f_code.co_filename
        if name not in FILES and not name.startswith(FOLDERS):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def step(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode":
            self.count += 1
            if not self.at:
                self.sites.append((frame.f_code, frame.f_lasti))
            elif self.count == self.at:
                self.hit = frame.f_code, frame.f_lasti
                sys.settrace(None)
                raise self.kind
        return self.step

    def run(self, call: Callable[[], object]) -> None:
        hook = sys.unraisablehook

        def drop(error: sys.UnraisableHookArgs) -> None:
            """Say nothing of an interrupt that came in a finalizer, which Python drops."""
            if not isinstance(error.exc_value, KINDS):
                hook(error)

        sys.unraisablehook = drop
        sys.settrace(self.enter)
        try:
            call()
        finally:
            sys.settrace(None)
            sys.unraisablehook = hook


def sites(call: Callable[[], object]) -> list[Site]:
    """Return the instructions that a call goes through, in their order."""
    tracer = _Tracer()
    tracer.run(call)
    return tracer.sites


def interrupted(call: Callable[[], object], number: int, kind: type[BaseException] = Interrupt) -> str:
    """Interrupt a call at its instruction of this number; return where that was, or nothing when it was over before.

    What it raises is then what the handler raised, and nothing else.
    """
    tracer = _Tracer(number, kind)
    with contextlib.suppress(kind):
        tracer.run(call)
    return "" if tracer.hit is None else named(tracer.hit)


def named(site: Site) -> str:
    """Say where an instruction is."""
    code, offset = site
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
    return f"{code.co_qualname} ({code.co_filename}:{line}, byte {offset})"

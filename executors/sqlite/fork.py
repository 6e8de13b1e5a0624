"""Forks while a queue file is open: none happens while a thread is inside SQLite.

SQLite keeps a table of each process's locks by file, and mutexes. A forked copy inherits both but not the locks: a new
connection in it would believe in locks that only the parent has, and hang on a mutex whose thread is not there. So

    before fork   ─▶ wait until no thread is inside SQLite, and let none in
    in the parent ─▶ go on
    in the copy   ─▶ descriptors of ours are closed at once; the inherited connections are never used, and are closed
                     (which mends the table) under the store's lock when the copy first uses the file
"""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Inherited", "fork_guard", "leak", "watch"]

#: Seconds between two looks while a thread forks.
LOOK_S = 0.0005


class Inherited(Protocol):
    """What has to do something in a forked copy."""

    def after_fork_in_child(self) -> None:
        """Leave to the parent what is the parent's."""


class _ForkGuard:
    """Know which threads are inside SQLite; `with fork_guard:` around every use of a connection.

    Going in and out takes no lock, as every write does it: a thread first says that it is inside and then looks whether
    somebody forks, who first says so and then looks who is inside. So one of them always sees the other.
    Whoever is inside may enter again: the garbage collector may close a store anywhere. Forks are rare and short, so
    that they are waited for by looking, which an interrupted thread does not stop others from.
    """

    def __init__(self) -> None:
        #: The thread that forks.
        self.forking: dict[int, int] = {}
        self.reset()

    def reset(self) -> None:
        """Start over, as in a forked copy: no thread is inside."""
        self._inside: dict[int, int] = {}  # how often each thread has entered
        self.forking.clear()

    def __enter__(self) -> None:
        me = get_ident()
        depth = self._inside.get(me, 0)
        self._inside[me] = depth + 1
        if self.forking and self.forking.get(0) != me and not depth:
            self._step_back(me)

    def _step_back(self, me: int) -> None:
        """Go out again until the fork is made."""
        while self.forking:
            self._inside.pop(me, None)
            while self.forking:
                time.sleep(LOOK_S)
            self._inside[me] = 1

    def __exit__(self, *_: object) -> None:
        self.restore(self.depth() - 1)

    def depth(self) -> int:
        """Return how often this thread is inside."""
        return self._inside.get(get_ident(), 0)

    def restore(self, depth: int) -> None:
        """Have this thread inside so often; an interrupted one may not have gone out."""
        if depth > 0:
            self._inside[get_ident()] = depth
        else:
            self._inside.pop(get_ident(), None)

    def shut(self) -> None:
        """Wait until no thread is inside, and let none in."""
        try:
            self._shut()
        except BaseException:  # Python goes on with the fork all the same
            self._shut()
            raise

    def open(self) -> None:
        """Let everybody in."""
        self.forking.clear()

    def _shut(self) -> None:
        me = get_ident()
        while self.forking.setdefault(0, me) != me:
            time.sleep(LOOK_S)
        while any(thread != me for thread in list(self._inside)):
            time.sleep(LOOK_S)


fork_guard = _ForkGuard()
_watched: weakref.WeakSet[Inherited] = weakref.WeakSet()


def watch(thing: Inherited) -> None:
    """Have its `after_fork_in_child` called in every copy that is forked from now on."""
    _watched.add(thing)


def _in_child() -> None:
    fork_guard.reset()
    for thing in list(_watched):
        thing.after_fork_in_child()


os.register_at_fork(before=fork_guard.shut, after_in_parent=fork_guard.forking.clear, after_in_child=_in_child)


def leak(connection: sqlite3.Connection) -> None:
    """Keep a connection from being closed by the garbage collector, which knows nothing of our lock."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

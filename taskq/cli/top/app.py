"""The loop of `taskq top`: keys, new snapshots and signals in; pictures out.

    Watcher's thread ──changed──▶ Terminal.wake ─┐
    SIGWINCH, SIGTSTP ───────────▶               ├──▶ Terminal.wait ──▶ state.press ──▶ view.picture ──▶ paint
    keys ────────────────────────────────────────┘                           └── Order ──▶ Watcher

The main thread never asks the store itself: a store that hangs does not freeze the keys.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from taskq.cli.screen import Screen, stdout_screen
from taskq.cli.top.keys import KeyReader
from taskq.cli.top.state import View, press
from taskq.cli.top.terminal import Terminal, key_descriptor
from taskq.cli.top.view import picture
from taskq.cli.top.watching import Watcher

if TYPE_CHECKING:
    from taskq.store import Store

__all__ = ["run_top"]

#: Seconds after which what may be Esc, or the start of another key, is Esc: terminals send keys in one piece.
ESC = 0.05


def run_top(store: Store, every: float) -> None:
    """Show the store until `q` is pressed; the terminal is given back however this ends."""
    with key_descriptor() as keys:
        terminal = Terminal(keys)
        with Watcher(store, every, terminal.wake) as watcher, terminal:
            App(terminal, watcher).run()


class App:
    """Hold what the user looks at."""

    def __init__(self, terminal: Terminal, watcher: Watcher) -> None:
        self._terminal = terminal
        self._watcher = watcher
        self._reader = KeyReader()
        self._view = View()

    def run(self) -> None:
        """Go on until the user has enough, or the terminal is gone."""
        while not self._view.done:
            self._paint()
            try:
                data = self._terminal.wait(ESC if self._reader.undecided else None)
            except (EOFError, OSError):
                return
            for key in self._reader.feed(data) if data else self._reader.flush():
                self._press(key)

    def _press(self, key: str) -> None:
        self._view, order = press(self._view, key, self._watcher.latest)
        self._watcher.show(self._view.detail)
        self._watcher.message = ""
        if order is not None:
            self._watcher.order(order)

    def _paint(self) -> None:
        width, height = self._terminal.size()
        screen = Screen(width=width, terminal=True, signs=stdout_screen().signs)
        view = replace(self._view, message=self._watcher.message or self._view.message)
        self._terminal.paint(picture(self._watcher.latest, view, screen, height))

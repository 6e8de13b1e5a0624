"""`taskq top`: the command, and the loop: keys, new snapshots and signals in; pictures out.

    Watcher's thread ──changed──▶ Terminal.wake ─┐
    SIGWINCH, SIGTSTP ───────────▶               ├──▶ Terminal.wait ──▶ state.press ──▶ view.picture ──▶ paint
    keys ────────────────────────────────────────┘                           └── Order ──▶ Watcher

The main thread never asks the store itself: a store that hangs does not freeze the keys. Where there is no terminal
one snapshot is printed.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.exits import Exit
from taskq.cli.format import job_document, queue_document, worker_document
from taskq.cli.screen import Screen, stdout_screen
from taskq.cli.stores import opened_store, store_flags
from taskq.cli.tell import emit
from taskq.cli.top.model import Throughput, Watcher, look
from taskq.cli.top.state import View, press
from taskq.cli.top.terminal import KeyReader, Terminal, key_descriptor
from taskq.cli.top.view import picture, plain_lines
from taskq.durations import parse_duration

if TYPE_CHECKING:
    from taskq.cli.top.model import Snapshot
    from taskq.store import Store

__all__ = ["run_top", "top"]

HELP = """Watch queues, running jobs, failures and workers, live.

Keys: tab and j/k choose, Enter shows a job with its log, C cancels, K kills, R runs again, P pauses a queue or
resumes it, ? helps, q quits. Without a terminal it prints once what there is.

\b
Examples:
  taskq top
  taskq top --url redis://queue-host/0 --every 5s
  taskq top --json
"""


@click.command("top", help=HELP, short_help="Watch queues, jobs and workers live.")
@click.option("--every", metavar="TIME", default="1s", help="How often to look; default: 1s.")
@store_flags
def top(every: str, **flags: Any) -> int:
    """Run the command."""
    period = parse_duration(every)
    with opened_store(flags) as store:
        if flags["as_json"] or not _is_screen():
            _print_once(store, as_json=flags["as_json"])
        else:
            run_top(store, period)
        return Exit.OK


def _is_screen() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _print_once(store: Store, *, as_json: bool) -> None:
    seen = look(store, Throughput())
    emit(lambda: _document(seen), lambda screen: plain_lines(seen, screen), as_json=as_json)


def _document(seen: Snapshot) -> dict[str, Any]:
    return {
        "url": seen.url,
        "queues": [queue_document(record, seen.workers) for record in seen.queues],
        "running": [job_document(record) for record in seen.running],
        "failed": [job_document(record) for record in seen.failed],
        "workers": [worker_document(record) for record in seen.workers],
    }


#: Seconds after which what may be Esc, or the start of another key, is Esc: terminals send keys in one piece.
ESC = 0.05


def run_top(store: Store, every: float) -> None:
    """Show the store until `q` is pressed; the terminal is given back however this ends."""
    with key_descriptor() as keys:
        terminal = Terminal(keys)
        with Watcher(store, every, terminal.wake) as watcher, terminal:
            App(terminal, watcher).run()


class App:
    """The loop and its view."""

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

"""Tables that fit: columns are left out, then cut, until a row is no wider than the screen.

    natural width ──too wide?──▶ leave out columns of the highest rank ──still?──▶ cut those that may be cut

Widths are counted in columns of the screen, of which some signs take two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from taskq.cli.screen import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskq.cli.screen import Line, Part, Screen

__all__ = ["STATE_STYLES", "Column", "cut", "fit", "table", "wrapped"]

#: Spaces between two columns.
GAP = 2

#: Characters of a text that are looked at for each cell that it may take: accents take none of their own.
LONGEST = 4

#: The colours of states and levels, wherever they are shown.
STATE_STYLES: Mapping[str, str] = {
    "queued": "",
    "scheduled": "cyan",
    "blocked": "magenta",
    "running": "blue",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "stopping": "yellow",
    "ok": "green",
    "warning": "yellow",
    "problem": "bold red",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its heading; `rank`: the higher, the sooner it is left out (0: never).

    `least`: columns of the screen down to which its texts may be cut; None: they are shown whole. `tail`: a cut leaves
    the end of a text. `styles`: the style of a cell by its text.
    """

    name: str
    right: bool = False
    rank: int = 0
    least: int | None = None
    tail: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], screen: Screen) -> list[Line]:
    """Return the lines of a table with its headings, no wider than the screen."""
    cells = [[printable(cell) for cell in row] for row in rows]
    kept = fit(columns, cells, screen.width)
    heading = [_part(columns[at], columns[at].name, width, screen, "bold") for at, width in kept]
    lines = [[_part(columns[at], row[at], width, screen) for at, width in kept] for row in cells]
    return [_spaced(line) for line in (heading, *lines)]


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[tuple[int, int]]:
    """Return which columns are shown, by their place, each with its width."""
    natural = [max(cell_len(column.name), *(cell_len(row[at]) for row in rows), 0) for at, column in enumerate(columns)]
    kept = list(range(len(columns)))
    if width is None:
        return [(at, natural[at]) for at in kept]
    natural = [min(size, width) for size in natural]
    least = [min(size, columns[at].least or size) for at, size in enumerate(natural)]
    while _total([least[at] for at in kept]) > width and any(columns[at].rank for at in kept):
        kept.remove(max(kept, key=lambda at: columns[at].rank))
    return list(zip(kept, _shrunk([natural[at] for at in kept], [least[at] for at in kept], width), strict=True))


def _shrunk(sizes: list[int], least: Sequence[int], width: int) -> list[int]:
    """Take from the widest that may give, one by one; in the end from any."""
    for floor in (least, [1] * len(sizes)):
        while _total(sizes) > width:
            giving = [at for at, size in enumerate(sizes) if size > floor[at]]
            if not giving:
                break
            sizes[max(giving, key=sizes.__getitem__)] -= 1
    return sizes


def _total(sizes: Sequence[int]) -> int:
    return sum(sizes) + GAP * (len(sizes) - 1)


def cut(text: str, width: int, mark: str, *, tail: bool = False) -> str:
    """Return a text no wider than `width`, with a mark where something was cut off: the end, or the start (`tail`)."""
    if cell_len(text) <= width:
        return text
    if not tail:
        return set_cell_size(text, max(0, width - 1)).rstrip() + mark
    text = text[-LONGEST * max(1, width) :]  # a text from a job may be long, and each step reads all of it
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return mark + text


def wrapped(text: str, room: int | None) -> list[str]:
    """Break a text into lines of at most `room` columns: at a space where there is one, else anywhere."""
    if room is None or cell_len(text) <= room:
        return [text]
    lines, line = [], ""
    for sign in text:
        if cell_len(line + sign) <= room:
            line += sign
            continue
        head, space, tail = (line, sign, "") if sign == " " else line.rpartition(" ")
        lines.append(head if space and head else line)
        line = "" if sign == " " else tail + sign if space and head else sign
    return [*lines, line]


def _part(column: Column, text: str, width: int, screen: Screen, style: str | None = None) -> Part:
    short = cut(text, width, screen.signs.cut, tail=column.tail)
    padding = " " * (width - cell_len(short))
    shown = padding + short if column.right else short + padding
    return shown, column.styles.get(text, "") if style is None else style


def _spaced(parts: Sequence[Part]) -> Line:
    spaced: list[Part] = []
    for part in parts:
        spaced += [part, (" " * GAP, "")]
    return spaced[:-1]

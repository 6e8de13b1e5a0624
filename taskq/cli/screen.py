"""What stdout is: a terminal of some width, or a file or pipe; which signs it can show; lines and colours on it.

    COLUMNS         the width, wherever output goes; else the terminal's own; else lines are as long as they are
    NO_COLOR        no colours; there are none either where stdout is no terminal
    other locales   a sign that the encoding has not is written as the nearest one that it has

rich is loaded only where there is colour to show.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["CLEAR", "PLAIN", "Line", "Part", "Screen", "Signs", "harmless", "printable", "stdout_screen"]

#: A piece of a line: its text, and its style as rich names it ("" for none).
Part: TypeAlias = tuple[str, str]
Line: TypeAlias = "Sequence[Part]"

#: What puts the cursor home and clears all below it.
CLEAR = "\x1b[H\x1b[J"

#: What colours the text behind it.
COLOUR = r"\x1b\[[0-9;:]{0,64}m"

#: stdout by number.
STDOUT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """The signs beyond ASCII that tables and views draw with."""

    cut: str = "…"
    full: str = "█"
    empty: str = "░"
    sparks: str = "▁▂▃▄▅▆▇█"


#: The signs for an encoding that has no others.
PLAIN = Signs(cut="~", full="#", empty=".", sparks="_.-=+*%#")


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What output is fitted to. `width` None: as wide as need be."""

    width: int | None = None
    terminal: bool = False
    signs: Signs = Signs()

    def show(self, lines: Iterable[Line]) -> None:
        """Print lines."""
        if self.terminal and not os.environ.get("NO_COLOR"):
            self._show_in_colour(lines)
            return
        for line in lines:
            sys.stdout.write("".join(text for text, _ in line).rstrip() + "\n")
        sys.stdout.flush()

    def _show_in_colour(self, lines: Iterable[Line]) -> None:
        from rich.console import Console  # noqa: PLC0415 - 50 ms that only a terminal pays
        from rich.text import Text  # noqa: PLC0415

        console = Console(width=self.width, highlight=False, markup=False, emoji=False)
        for line in lines:
            text = Text.assemble(*line)
            text.rstrip()
            console.print(text, no_wrap=True, overflow="ignore", crop=False)


def stdout_screen() -> Screen:
    """Return what stdout is now."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return Screen(width=_width(terminal=terminal), terminal=terminal, signs=_signs())


def _width(*, terminal: bool) -> int | None:
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return (os.get_terminal_size(STDOUT).columns or None) if terminal else None
    except OSError:
        return None


def _signs() -> Signs:
    """Return the signs that stdout's encoding has; others will be replaced instead of raising an error."""
    signs = Signs()
    if sys.stdout is None:
        return PLAIN
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    try:
        (signs.cut + signs.full + signs.empty + signs.sparks).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return signs


def printable(text: str) -> str:
    """Return a text as one line without control characters: what is in a store may come from anyone."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "�" for sign in text)


def harmless(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a job's words as UTF-8 that a terminal only shows: lines and tabs stay, other control is a sign."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    for piece in chain(pieces, [None]):
        text = decode(piece or b"", final=piece is None)
        yield (text if text.isprintable() else "".join(map(_shown, _plain(text)))).encode()


def _plain(text: str) -> str:
    """Leave colours out, and have a new line where a terminal would go back to the start of the same one."""
    return re.sub(COLOUR, "", text).replace("\r\n", "\n").replace("\r", "\n")


def _shown(sign: str) -> str:
    return sign if sign.isprintable() or sign in "\n\t" else "�"

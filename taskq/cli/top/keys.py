"""From the bytes that a terminal sends to the names of keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KeyReader"]

#: What terminals send for keys that have no character of their own, in both modes of the cursor keys.
SEQUENCES = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "Z": "backtab",
    "1~": "home",
    "4~": "end",
    "5~": "pageup",
    "6~": "pagedown",
}

CONTROLS = {"\t": "tab", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x0c": "redraw"}

SEQUENCE = re.compile(r"\x1b(?:\[|O)([0-9;]*[A-Za-z~])")
#: The start of a sequence whose rest has not come yet.
TORN = re.compile(r"\x1b(?:[\[O][0-9;]*)?")


class KeyReader:
    """Make names of keys of what a terminal sends, however it is cut into pieces."""

    def __init__(self) -> None:
        self._rest = ""

    @property
    def undecided(self) -> bool:
        """Whether what came last may be Esc, or the start of another key."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that these bytes complete."""
        self._rest += data.decode(errors="ignore")
        return list(self._keys())

    def flush(self) -> list[str]:
        """Nothing more came: what looked like the start of a key was Esc."""
        rest, self._rest = self._rest, ""
        return ["esc", *rest[1:]] if rest else []

    def _keys(self) -> Iterator[str]:
        while self._rest and TORN.fullmatch(self._rest) is None:
            found = SEQUENCE.match(self._rest)
            if found is not None:
                self._rest = self._rest[found.end() :]
                if (name := SEQUENCES.get(found[1])) is not None:
                    yield name
            else:
                sign, self._rest = self._rest[0], self._rest[1:]
                yield "esc" if sign == "\x1b" else CONTROLS.get(sign, sign)

"""The names that a mistyped one was probably meant to be, for error messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean"]

#: Names offered at most.
OFFERED = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean x or y?" for the known names that resemble the word, or an empty text."""
    from difflib import get_close_matches  # noqa: PLC0415 - wanted after a mistake only, not at start-up

    close = get_close_matches(word, list(known), n=OFFERED)
    return f"; did you mean {' or '.join(close)}?" if close else ""

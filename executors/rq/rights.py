"""Which right a user of Redis lacks, in words: Redis itself names the command only where no script runs it.

NOPERM ... to run the 'info' command                          ──▶ INFO
ERR The user executing the script can't run ... user_script:7 ──▶ what line 7 of the script calls
NOPERM ... one of the keys used as arguments                  ──▶ the command that was sent
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_refusal", "missing_right"]

#: What stands in an error of a Redis that refuses a command, a key or a channel by its access control list.
REFUSALS: Final = ("noperm", "no permissions", "the user executing the script can't")

_QUOTED: Final = re.compile(r"'([a-z|_-]{1,40})' command")
_LINE: Final = re.compile(r"user_script:(\d{1,6})")
_CALL: Final = re.compile(rb"call\('([A-Z]{2,20})'")


def is_refusal(text: str) -> bool:
    """Return whether this is what Redis answers when its access control list forbids something."""
    low = text[:400].lower()
    return any(word in low for word in REFUSALS)


def missing_right(text: str, sent: bytes = b"", script: bytes = b"") -> str:
    """Return what the user may not do, and the cure. `sent`: the command over the wire, `script`: the text it ran."""
    commands = _commands(text, sent, script)
    told = " or ".join(name.upper().replace("|", " ") for name in commands) or "a command that taskq needs"
    low = text.lower()
    if "key" in low:
        return f"its user may not run {told} on these keys: give it the keys of its prefix, as ~rq:*"
    if "channel" in low:
        return f"its user may not run {told} on these channels: give it the channels of its prefix, as &rq:*"
    rules = " ".join(f"+{name.lower()}" for name in commands) or "the rules in contrib/acl"
    return f"its user may not run {told}: give it {rules} by ACL SETUSER; contrib/acl has all that is needed"


def _commands(text: str, sent: bytes, script: bytes) -> list[str]:
    quoted = _QUOTED.search(text)
    if quoted is not None:
        return [quoted[1]]
    line = _LINE.search(text)
    if line is not None and script:
        lines = script.split(b"\n")
        at = int(line[1]) - 1
        found = _CALL.findall(lines[at]) if at < len(lines) else []
        return list(dict.fromkeys(name.decode().lower() for name in found))
    words = sent[:200].split(b"\r\n")
    return [words[2].decode("ascii", "replace").lower()] if sent.startswith(b"*") and len(words) > 2 else []  # noqa: PLR2004  # head, length, name

"""The Lua scripts, each one atomic step in Redis: loaded from lua/, with the names of `keys` put in.

    lua/finish.lua   ──▶   parts it is built on (its first line) + its own text, K_ F_ S_ T_ words replaced
                        ──▶   Script: the text, its SHA1, and the head of the EVALSHA command that runs it

Every script takes one argument, a msgpack array, so that neither side spends its time on parsing many small ones.
Scripts compute key names, so they need a Redis that is not a cluster; RQ itself does too.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from taskq.executors.rq.keys import Keys

__all__ = ["Script", "Scripts", "calls_of"]

FOLDER: Final = Path(__file__).parent / "lua"

#: The first line of a script: the parts that stand before it, in this order.
NEEDS: Final = re.compile(r"-- needs: ([a-z_ ]+)\n")

#: Bytes of an argument above which its packer is let go: it keeps a buffer for its largest one.
KEPT_BUFFER: Final = 1_048_576

#: A call in a script's text.
CALL: Final = re.compile(r"\bp?call\(\s*'([A-Z]{2,20})'")

WORD: Final = re.compile(r"\b[KFST]_[A-Za-z_]+\b")


class Script:
    """One script, ready to be sent."""

    __slots__ = ("_head", "name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()
        self._head = f"*4\r\n$7\r\nEVALSHA\r\n$40\r\n{self.sha}\r\n$1\r\n0\r\n".encode()

    def command(self, argument: Any) -> bytes:
        """Return the command that runs it with this argument, as it goes over the wire."""
        try:
            packer = _packers.pop()
        except IndexError:
            packer = msgpack.Packer(use_bin_type=False, unicode_errors="surrogateescape")
        blob = packer.pack(argument)
        if len(blob) < KEPT_BUFFER:
            _packers.append(packer)
        return b"%b$%d\r\n%b\r\n" % (self._head, len(blob), blob)


#: Packers at rest, each of which serves one thread at a time: to make one takes longer than to pack a job.
_packers: list[Any] = []


class Scripts:
    """All scripts for one prefix, read when they are first asked for."""

    def __init__(self, keys: Keys) -> None:
        self._literals = keys.literals()
        self._made: dict[str, Script] = {}

    def __getattr__(self, name: str) -> Script:
        """Make a script when it is asked for first; afterwards it is an attribute."""
        if name.startswith("_"):
            raise AttributeError(name)
        made = self._made[name] = self.__dict__[name] = Script(name, self._built(name))
        return made

    def replace(self, script: Script) -> None:
        """Use this script in the place of the one with its name."""
        self._made[script.name] = self.__dict__[script.name] = script

    def of(self, sha: str) -> Script | None:
        """Return the script with this SHA1."""
        return next((script for script in self._made.values() if script.sha == sha), None)

    def _built(self, name: str) -> str:
        return WORD.sub(self._literal, _source(name))

    def _literal(self, match: re.Match[str]) -> str:
        text = self._literals[match[0]]
        return text if text.isdigit() else f"'{text}'"


@lru_cache(maxsize=64)
def calls_of(*names: str) -> list[str]:
    """Return the commands of Redis that these scripts may call."""
    return sorted({found for name in names for found in CALL.findall(_source(name))})


@lru_cache(maxsize=64)
def _source(name: str) -> str:
    """Return a script's text behind those of its parts."""
    text = (FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    needs = NEEDS.match(text)
    if needs is None:
        return text
    return "".join(_source(part) for part in needs[1].split()) + text

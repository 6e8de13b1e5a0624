"""Read the fenced blocks of a Markdown file, and the commands with their output in a console block."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

#: What stands before a command in a console block; the lines up to the next one are its output.
PROMPT = "$ "

#: What stands for any text in the output that is shown.
ANYTHING = "..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block; `line` is that of its first line of text, counted from 1."""

    language: str
    text: str
    line: int

    @property
    def file_name(self) -> str | None:
        """Return the file that the block is to be saved as when its first line is a comment with a name."""
        named = re.match(r"# (\S+\.\w+)\n", self.text)
        return named[1] if named else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a console block and the output that is shown below it."""

    text: str
    output: str

    def shows(self, stdout: str) -> bool:
        """Return whether this output was promised; a command without any promises nothing."""
        promised = ".*".join(re.escape(part) for part in self.output.split(ANYTHING))
        return not self.output or re.fullmatch(promised, stdout, flags=re.DOTALL) is not None


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a file in their order."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        yield Block(language=found["language"], text=found["text"], line=line)


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a console block; one may go on over lines that end in a backslash."""
    text: list[str] = []
    output: list[str] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith(PROMPT):
            if text:
                yield Command(text="".join(text), output="".join(output))
            text, output = [line.removeprefix(PROMPT)], []
        elif not output and text and text[-1].endswith("\\\n"):
            text.append(line)
        else:
            output.append(line)
    if text:
        yield Command(text="".join(text), output="".join(output))

"""What a command line of `taskq submit` asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from taskq.options import JobOptionFields

__all__ = ["Request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A task with its words, or a command; and what is to become of it."""

    target: str | None = None
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    args_json: str | None = None
    jsonl: str | None = None
    wait: bool = False
    raw: bool = False
    unchecked: bool = False
    tracebacks: bool = False
    as_json: bool = False
    verbose: bool = False
    surroundings: dict[str, Any] = field(default_factory=dict)
    options: JobOptionFields

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.target if self.target is not None else self.command[0]

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            click.UsageError: says what to leave out.
        """
        if self.command and (self.args_json is not None or self.raw or self.unchecked):
            raise click.UsageError("--args-json, --raw and --unchecked are for tasks, not for a command")
        if self.jsonl is None:
            return
        if self.wait:
            raise click.UsageError("--jsonl prints ids and does not wait: taskq map gives a result for each line")
        if self.words or self.args_json is not None:
            raise click.UsageError("the arguments come from the lines of --jsonl: leave out those beside it")
        if self.options.get("job_id") is not None or self.options.get("key") is not None:
            raise click.UsageError("all lines of --jsonl would be one job: leave out --job-id and --key")

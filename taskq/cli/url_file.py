"""`--url-file`: the queue's URL in a file, where a password is not seen in the list of processes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["url_file"]

F = TypeVar("F", bound="Callable[..., Any]")

#: Bytes of a file that are read: more is no URL.
MOST = 10_000


def url_file(command: F) -> F:
    """Add the flag to a command that has --url, which gets what the file says."""

    @functools.wraps(command)
    def run(*args: Any, url: str | None, url_file: str | None, **flags: Any) -> Any:
        if url_file is not None:
            if url is not None:
                raise click.UsageError("give --url or --url-file, not both")
            url = _read(url_file)
        return command(*args, url=url, **flags)

    option = click.option("--url-file", metavar="FILE", help="A file whose first line is the URL.")
    return cast("F", option(run))


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            words = file.read(MOST).decode().split()
    except OSError as exc:
        raise ConfigError(f"--url-file {name}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--url-file {name}: it is not UTF-8 text") from None
    if len(words) != 1:
        raise ConfigError(f"--url-file {name}: write one URL into it, and nothing else")
    return words[0]

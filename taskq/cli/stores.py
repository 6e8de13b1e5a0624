"""The store that a command works on: which one, opened for a block, and jobs found in it by what people type.

    --url, --url-file  >  TASKQ_URL  >  taskq.toml, pyproject.toml  >  a file in the user's state folder

Code and `taskq map` default to local://, which ends with the process; the commands about jobs need a store that stays.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast
from urllib.parse import quote, unquote

import click

from taskq import config, context, log
from taskq.cli.signals import interruptible
from taskq.connect import open_store
from taskq.durations import parse_duration
from taskq.errors import ConfigError, JobNotFound
from taskq.redact import KEYS_VARIABLE, URL_VARIABLE, safe_url, without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from taskq.store import Ended, JobRecord, Store

__all__ = [
    "LOOK",
    "ago",
    "default_store_url",
    "ends",
    "find_jobs",
    "jobs_of",
    "keep_password",
    "opened_store",
    "served",
    "settle_url",
    "store_flags",
    "to_open",
    "url_file",
]

#: How a store is opened; see `opened_store`.
Mode: TypeAlias = Literal["ro", "rw", "rwc"]

F = TypeVar("F", bound="Callable[..., Any]")

FLAGS = (
    click.option("--url", metavar="URL", help="The queue; default: a file of yours, see taskq config show."),
    click.option("--log-format", type=click.Choice(["console", "json"]), help="Form of messages on stderr."),
    click.option("--json", "as_json", is_flag=True, help="Output and errors as JSON, for programs."),
)

#: Characters of an id that must be typed at the least, and newest jobs among which a part of an id is looked for.
LEAST_TYPED = 4

LOOKED_THROUGH = 10_000

#: Candidates that an error names.
NAMED = 5


def store_flags(command: F) -> F:
    """Add the flags that all commands on a store share."""
    for flag in reversed((*FLAGS, url_file)):
        command = flag(command)
    return command


def default_store_url(environ: dict[str, str] | None = None) -> str:
    """Return the URL of the user's own queue file."""
    known = os.environ if environ is None else environ
    state = known.get("XDG_STATE_HOME") or ""
    folder = Path(state) if Path(state).is_absolute() else Path(known.get("HOME") or Path.home()) / ".local" / "state"
    return f"sqlite://{quote(str(folder / 'taskq' / 'queue.db'))}"


def settle_url(flag: str | None) -> str:
    """Return the URL that a flag, the environment or a settings file names, else that of the user's queue file."""
    said = config.trace({"url": flag}).get("url")
    return default_store_url() if said is None else str(said[0])


def keep_password() -> None:
    """Take the queue's password and the keys out of the environment, which the processes of a worker inherit."""
    kept = without_password(os.environ)
    if kept is os.environ:
        return
    if KEYS_VARIABLE in os.environ:
        from taskq.signing import read_keys  # noqa: PLC0415  # 10 ms that only those pay who sign

        context.keep_keys(read_keys())
    for name in (KEYS_VARIABLE, URL_VARIABLE):
        if name not in kept:
            os.environ.pop(name, None)


def to_open(url: str, mode: Mode = "rwc") -> str:
    """Return the URL by which a command opens a store: only `rwc` makes a queue file that is not there.

    The user's own file is made in any case, with its folder: no path was mistyped there.
    """
    if url == default_store_url():
        Path(unquote(url.removeprefix("sqlite://"))).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif mode != "rwc" and url.lower().startswith("sqlite://"):
        return f"{url}{'&' if '?' in url else '?'}mode={mode}"
    return url


@contextlib.contextmanager
def opened_store(flags: dict[str, Any], url: str | None = None, *, mode: Mode = "rw") -> Iterator[Store]:
    """Open the store that a command's flags mean; signals end the block by an exception.

    `mode`: "ro" for a command that only reads, "rwc" for one that may make a queue file.

    Raises:
        ConfigError: the URL names no store, or a setting is wrong.
        BackendUnavailable: it cannot be reached.
    """
    settings = config.load({name: flags.get(name) for name in ("log_format", "log_level")})
    log.configure(settings.log_format, settings.log_level)
    chosen = settle_url(flags.get("url")) if url is None else url
    if chosen.partition("://")[0].lower() == "local":
        raise ConfigError(
            f"{safe_url(chosen)} keeps no jobs that another command could see: give --url sqlite:///PATH or --url redis://HOST"
        )
    with interruptible(), contextlib.closing(open_store(to_open(chosen, mode))) as store:
        yield store


def served(store: Store, queue: str) -> bool:
    """Return whether a worker that is alive takes jobs of a queue."""
    return any(queue in worker.queues and not worker.stopping for worker in store.workers())


# --- jobs by what people type
def find_jobs(store: Store, words: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
    """Return the jobs that these words mean, None for each that means none.

    A word is an id, or as much of its start or of its end as only one of the newest jobs has.

    Raises:
        ConfigError: a part of an id fits several jobs; the message names them.
    """
    found = store.get(words, payload=payload)
    open_words = [word for word, record in zip(words, found, strict=True) if record is None]
    if not open_words:
        return found
    known = store.list(limit=LOOKED_THROUGH)
    meant = {word: _the_one(word, known) for word in open_words}
    ids = sorted({job_id for job_id in meant.values() if job_id is not None})
    records = dict(zip(ids, store.get(ids, payload=payload), strict=True))
    return [record or records.get(meant.get(word) or "") for word, record in zip(words, found, strict=True)]


def jobs_of(store: Store, words: Sequence[str], *, payload: bool = False) -> list[JobRecord]:
    """Return the jobs that these words mean; raises as `find_jobs`.

    Raises:
        JobNotFound: one of them means none.
    """
    found = find_jobs(store, words, payload=payload)
    missing = [word for word, record in zip(words, found, strict=True) if record is None]
    if missing:
        raise JobNotFound(f"no job {', '.join(missing)} in {store.url}: taskq status lists those that are kept")
    return [record for record in found if record is not None]


def _the_one(word: str, known: Sequence[JobRecord]) -> str | None:
    part = word.lstrip("…~.")
    if len(part) < LEAST_TYPED:
        return None
    fitting = [record for record in known if _fits(record.id, part)]
    if len(fitting) > 1:
        named = ", ".join(f"{record.id} ({record.task}, {record.state})" for record in fitting[:NAMED])
        more = f" and {len(fitting) - NAMED:,} more" if len(fitting) > NAMED else ""
        raise ConfigError(f"{word!r} may be any of {len(fitting):,} jobs: {named}{more}: give more of the id")
    return fitting[0].id if fitting else None


def _fits(job_id: str, part: str) -> bool:
    return any(job_id.startswith(text) or job_id.endswith(text) for text in {part, part.upper()})


def ago(text: str | None) -> float | None:
    """Return the instant that is this length of time ago, in seconds since 1970; None for None.

    Raises:
        ConfigError: it is no length of time.
    """
    return None if text is None else time.time() - parse_duration(text)


#: Seconds that one look takes at the most: then signals are seen to, and whoever asked may look about.
LOOK = 1.0


def ends(store: Store, ids: Collection[str], timeout: float | None) -> Iterator[Ended | None]:
    """Yield the jobs as they end, each once, and None now and then; stop when all have, or the time is over."""
    from taskq.wait_book import WaitBook  # noqa: PLC0415 - 5 ms that commands which do not wait do without

    deadline = None if timeout is None else time.monotonic() + timeout
    book: WaitBook[None] = WaitBook()
    for job_id in ids:
        book.add(job_id, None)
    with contextlib.closing(store.subscribe()) as subscription:
        while book.waiters:
            rest = LOOK if deadline is None else min(LOOK, deadline - time.monotonic())
            subscription.ask(book.due(subscription.ask_most))
            for ended in book.take(subscription.wait(max(0.0, rest))):
                if book.discard(ended.id):
                    yield ended
            if rest <= 0:
                return
            yield None


#: Bytes of a file that are read: more is no URL.
URL_FILE_MOST = 10_000


def url_file(command: F) -> F:
    """Add the flag to a command that has --url, which gets what the file says."""

    @functools.wraps(command)
    def run(*args: Any, url: str | None, url_file: str | None, **flags: Any) -> Any:
        if url_file is not None:
            if url is not None:
                raise click.UsageError("give --url or --url-file, not both")
            url = _read_url(url_file)
        return command(*args, url=url, **flags)

    option = click.option("--url-file", metavar="FILE", help="A file whose first line is the URL.")
    return cast("F", option(run))


def _read_url(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            words = file.read(URL_FILE_MOST).decode().split()
    except OSError as exc:
        raise ConfigError(f"--url-file {name}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--url-file {name}: it is not UTF-8 text") from None
    if len(words) != 1:
        raise ConfigError(f"--url-file {name}: write one URL into it, and nothing else")
    return words[0]

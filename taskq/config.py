"""Settings that are said once, for code, command line and workers.

    flag  >  TASKQ_* in the environment  >  taskq.toml  >  [tool.taskq] in pyproject.toml  >  default

Both files are looked for in the working directory and upwards, as far as the home folder or the file system goes; the
nearest of each name counts. One that belongs to others, or that others may write, is passed over with a word on stderr
(`found`). TASKQ_CONFIG names one file to read instead, whosever it is. Every value goes through the same reader, so
that `timeout = "10m"` means the same in a file, a variable and a flag.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from taskq import context
from taskq.durations import parse_duration
from taskq.errors import ConfigError
from taskq.found import read_found, upwards
from taskq.log import LEVELS, LogFormat
from taskq.record import Record
from taskq.redact import safe_text, safe_url
from taskq.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["START_METHODS", "Settings", "default_url", "load", "parse_truth", "trace"]

#: Start of the names of the environment variables.
PREFIX = "TASKQ_"

#: The variable that names the file to read in the place of those that would be found.
CONFIG_VARIABLE = "TASKQ_CONFIG"

#: Where jobs live when nobody says anything.
LOCAL = "local://"

START_METHODS = ("fork", "forkserver", "spawn")

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


class Settings(Record):
    """Hold every setting; None leaves the choice to whoever uses it.

    Times are seconds. `retries` and `timeout` are for jobs whose task does not say otherwise by a flag.
    """

    url: str = LOCAL
    processes: int | None = None
    start_method: str | None = None
    chunksize: int | None = None
    timeout: float | None = None
    soft_timeout: float | None = None
    retries: int | None = None
    progress: bool | None = None
    log_format: LogFormat = "console"
    log_level: str = "warning"


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> Settings:
    """Return the settings, each from the first place that has it; a flag that is None was not given.

    Raises:
        ConfigError: an unknown key or a senseless value; the message names the place and the key.
    """
    values: dict[str, Any] = {key: value for key, (value, _) in trace(flags, environ, directory).items()}
    return Settings(**values)


def trace(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> dict[str, tuple[object, str]]:
    """Return each setting that something says, with its value and where it is said; raises as `load`."""
    chosen: dict[str, tuple[object, str]] = {}
    for place, values in _places(flags or {}, os.environ if environ is None else environ, directory):
        for key, value in values.items():
            if key not in READERS:
                raise ConfigError(_unknown(place, key))
            read = _read(place, key, value)
            if key == "url" and type(values) is Found:
                _refuse_permissions(place, str(read))
            chosen.setdefault(key, (read, _named(place, key)))
    return chosen


def default_url(*, environ: Mapping[str, str] | None = None, directory: str | None = None) -> str:
    """Return the URL of a `TaskQueue()` that was given none: TASKQ_URL, a file's, or "local://".

    In a worker's job it is that of the queue that runs the job.

    Raises:
        ConfigError: a settings file has an unknown key or a senseless value.
    """
    if environ is None and directory is None and (home := context.home_url()):
        return home
    known = os.environ if environ is None else environ
    return known.get(PREFIX + "URL") or load(environ=known, directory=directory).url


# --- where values come from


class Found(dict[str, object]):
    """The settings of a file that was found by searching."""


#: What lets strangers run code in workers: nobody shall get it from a file that lies about.
PERMISSIONS = ("allow_pickle", "allow_callbacks", "allow_commands")


def _refuse_permissions(place: str, url: str) -> None:
    names = [part.partition("=")[0] for part in url.partition("?")[2].split("&")]
    said = next((name for name in names if name in PERMISSIONS), None)
    if said is not None:
        raise ConfigError(
            f"{place}url has {said} in it, which no file that was found by searching may give: use --url or TASKQ_URL"
        )


#: A place in words, as "taskq.toml:", and the values found there.
Place = tuple[str, "Mapping[str, object]"]


def _places(flags: Mapping[str, object], environ: Mapping[str, str], directory: str | None) -> Iterator[Place]:
    yield "--", {key: value for key, value in flags.items() if value is not None}
    yield PREFIX, {key: environ[name] for key in READERS if environ.get(name := PREFIX + key.upper())}
    explicit = environ.get(CONFIG_VARIABLE)
    if explicit:
        yield f"{explicit}: ", _table(explicit, explicit.endswith("pyproject.toml"))
        return
    start = directory or _working_directory()
    for name in ("taskq.toml", "pyproject.toml"):
        for folder in upwards(start) if start else ():
            path = os.path.join(folder, name)  # noqa: PTH118 - see _working_directory
            data = read_found(path, mentioning=b"" if name == "taskq.toml" else b"tool.taskq")
            if data is not None:
                yield f"{path}: ", Found(_parsed(data, path, name != "taskq.toml"))
                break


def _working_directory() -> str | None:
    """Return the working directory, or None where it was deleted under our feet."""
    try:
        return os.getcwd()  # noqa: PTH109 - pathlib would be a third of the time that `import taskq` may take
    except FileNotFoundError:
        return None


def _table(path: str, pyproject: bool) -> Mapping[str, object]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see _working_directory
            data = file.read()
    except OSError as exc:
        raise ConfigError(f"cannot read the settings in {path}: {exc.strerror}") from exc
    return _parsed(data, path, pyproject)


def _parsed(data: bytes, path: str, pyproject: bool) -> Mapping[str, object]:
    import tomllib  # noqa: PLC0415 - only when there is a file

    try:
        table: object = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the settings in {path} are not valid TOML: {exc}") from exc
    for step in ("tool", "taskq") if pyproject else ():
        table = table.get(step, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.taskq is {safe_text(repr(table))}: make it a table, [tool.taskq]")
    return table


# --- what values may be


def _read(place: str, key: str, value: object) -> object:
    try:
        return READERS[key](value)
    except ConfigError as exc:
        raise ConfigError(f"{_named(place, key)}: {_without_secrets(str(exc), value)}") from None


def _without_secrets(message: str, value: object) -> str:
    """Mask what a setting's value tells: any of them may hold a URL by mistake."""
    if isinstance(value, str):
        message = message.replace(repr(value), repr(safe_url(value)))
    return safe_text(message)


def _named(place: str, key: str) -> str:
    """Return the setting's name as the user wrote it: --log-level, TASKQ_LOG_LEVEL, taskq.toml: log_level."""
    if place == "--":
        return place + key.replace("_", "-")
    return place + key.upper() if place == PREFIX else place + key


def _unknown(place: str, key: str) -> str:
    hint = did_you_mean(key, READERS) or f"; the settings are {', '.join(READERS)}"
    return f"{_named(place, key)}: no such setting{hint}"


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ConfigError(f"{value!r} is not a text")


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and value.lower() in words:
            return value.lower()
        raise ConfigError(f"{value!r}: write {', '.join(words[:-1])} or {words[-1]}")

    return read


def _whole(low: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
        if type(number) is int and number >= low:
            return number
        raise ConfigError(f"{value!r} is not a whole number from {low} up")

    return read


def parse_truth(value: object) -> bool:
    """Return the yes or no that a value means: true, yes, on, 1, or their opposites.

    Raises:
        ConfigError: it means neither.
    """
    word = str(value).lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise ConfigError(f"{value!r}: write true or false")


#: What makes a setting's value of what was written; the keys are the names of the settings.
READERS: dict[str, Callable[[object], object]] = {
    "url": _text,
    "processes": _whole(1),
    "start_method": _one_of(*START_METHODS),
    "chunksize": _whole(1),
    "timeout": parse_duration,
    "soft_timeout": parse_duration,
    "retries": _whole(0),
    "progress": parse_truth,
    "log_format": cast("Callable[[object], object]", _one_of("console", "json")),
    "log_level": _one_of(*LEVELS),
}

assert READERS.keys() == set(Settings.field_names())  # noqa: S101 - the two lists are one

"""Settings, each said once for code, command line and workers.

    flag  >  TASKQ_* in the environment  >  taskq.toml  >  [tool.taskq] in pyproject.toml  >  default

Both files are looked for in the working directory and upwards, as far as the home folder or the file system goes; the
nearest of each name counts. A file is believed only if it and its folder belong to this user or root, and nobody else
may write them, else the owner of a folder above could choose the queue of all who work below it. A file that is not
believed is passed over with a warning on stderr. TASKQ_CONFIG names one file to read instead, whoever owns it.
Every value goes through the same reader, so `timeout = "10m"` means the same in a file, a variable and a flag.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any, cast

from taskq.context import home_url
from taskq.durations import parse_duration
from taskq.errors import ConfigError
from taskq.frozen import Frozen
from taskq.log import LEVELS, LogFormat
from taskq.names import did_you_mean
from taskq.redact import safe_text, safe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["START_METHODS", "Settings", "default_url", "load", "parse_truth", "trace"]

#: Start of the names of the environment variables.
PREFIX = "TASKQ_"

#: The variable that names the file to read in the place of those that would be found.
CONFIG_VARIABLE = "TASKQ_CONFIG"

#: Where jobs live by default.
LOCAL = "local://"

START_METHODS = ("fork", "forkserver", "spawn")

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


class Settings(Frozen):
    """All settings; None leaves the choice to its user.

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
    if environ is None and directory is None and (home := home_url()):
        return home
    known = os.environ if environ is None else environ
    return known.get(PREFIX + "URL") or load(environ=known, directory=directory).url


# --- where values come from


class Found(dict[str, object]):
    """The settings of a file that was found by searching."""


#: Permissions by which others can run code in workers: a file that was found by searching must not give them.
PERMISSIONS = ("allow_pickle", "allow_callbacks", "allow_commands", "allow_unsigned_rq", "rq_commands")


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
        for folder in _upwards(start) if start else ():
            path = os.path.join(folder, name)  # noqa: PTH118  # see _working_directory
            data = _read_found(path, mentioning=b"" if name == "taskq.toml" else b"tool.taskq")
            if data is not None:
                yield f"{path}: ", Found(_parsed(data, path, name != "taskq.toml"))
                break


def _working_directory() -> str | None:
    """Return the working directory, or None where it was deleted."""
    try:
        return os.getcwd()  # noqa: PTH109  # pathlib would be a third of the time that `import taskq` may take
    except FileNotFoundError:
        return None


def _table(path: str, pyproject: bool) -> Mapping[str, object]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # see _working_directory
            data = file.read()
    except OSError as exc:
        raise ConfigError(f"cannot read the settings in {path}: {exc.strerror}") from exc
    return _parsed(data, path, pyproject)


def _parsed(data: bytes, path: str, pyproject: bool) -> Mapping[str, object]:
    import tomllib  # noqa: PLC0415  # only when there is a file

    try:
        table: object = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the settings in {path} are not valid TOML: {exc}") from exc
    for step in ("tool", "taskq") if pyproject else ():
        table = table.get(step, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.taskq is {safe_text(repr(table))}: make it a table, [tool.taskq]")
    return table


# --- files that are found by searching

#: Files that were warned of already.
warned: set[str] = set()


def _upwards(folder: str) -> Iterator[str]:
    """Yield a folder and those above it, no higher than the home folder or this file system."""
    home, device = os.path.realpath(os.path.expanduser("~")), _device(folder)  # noqa: PTH111  # see _working_directory
    while True:
        yield folder
        above = os.path.dirname(folder)  # noqa: PTH120  # see _working_directory
        if above == folder or os.path.realpath(folder) == home or _device(above) != device:
            return
        folder = above


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev  # noqa: PTH116  # see _working_directory
    except OSError:
        return None


def _read_found(path: str, *, mentioning: bytes) -> bytes | None:
    """Return the bytes of a settings file; None where there is none, it does not mention us, or it is not believed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if not mentioning:
            _tell(path, str(exc.strerror))
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        data = file.read()
    if mentioning not in data:  # other people's pyproject.toml need not concern us, valid or not
        return None
    why = _why_not(status) or _why_not(os.stat(os.path.dirname(path) or "."))  # noqa: PTH116, PTH120  # see _working_directory
    if why is None:
        return data
    _tell(path, why)
    return None


def _why_not(status: os.stat_result) -> str | None:
    """Return why a file or folder of this status is not believed."""
    what = "its folder" if stat.S_ISDIR(status.st_mode) else "it"
    if status.st_uid not in (0, os.geteuid()):
        return f"{what} belongs to another user"
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX  # others cannot rename files in it
    if status.st_mode & stat.S_IWOTH and not sticky:
        return f"others may write {what}"
    if status.st_mode & stat.S_IWGRP and not sticky and not _is_private(status.st_gid):
        return f"its group may write {what}"
    return None


def _is_private(gid: int) -> bool:
    """Tell whether a group is root's, or this user's own, with no other member."""
    import grp  # noqa: PLC0415  # only where a group may write
    import pwd  # noqa: PLC0415  # see above

    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == 0 or (group.gr_name == user and set(group.gr_mem) <= {user})


def _tell(path: str, why: str) -> None:
    if path not in warned and sys.stderr is not None:
        warned.add(path)
        try:
            sys.stderr.write(f"taskq: the settings in {path} are not read: {why} (TASKQ_CONFIG names a file to read)\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return


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


# --- the settings

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

assert READERS.keys() == set(Settings.field_names())  # noqa: S101  # the two lists are one

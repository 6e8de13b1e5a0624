"""From a URL to the executor behind it.

    "local://?processes=4"  ──scheme──▶  BUILT_IN, a table of strings, else entry points "taskq.executors"
                            ──query───▶  settings; what the caller gives by name wins over the query
                                         └──▶  the executor's class, called with the settings by name

The table holds strings so that nothing is imported before a URL names it. A class that an entry point brings
is called as `cls(url, **settings)`: its URL says where; ours for `local://` needs no place.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from taskq.config import START_METHODS, parse_truth
from taskq.errors import ConfigError
from taskq.redact import safe_url
from taskq.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from taskq.executor import Executor

__all__ = ["open_executor", "safe_url"]

#: Scheme -> "module:class" of the executors of this distribution.
BUILT_IN = {"local": "executors.local:LocalExecutor"}

#: Schemes that the design has and this version has not.
PLANNED = ("sqlite", "redis", "rediss", "unix")

#: The entry point group by which other distributions bring executors.
GROUP = "taskq.executors"


def open_executor(url: str, settings: Mapping[str, object]) -> Executor:
    """Return a new executor for a URL; a setting that is None was not given.

    Raises:
        ConfigError: the URL has no known scheme, or a setting is unknown or senseless; passwords are masked.
        MissingExtra, BackendUnavailable, PoolBroken: from the executor itself.
    """
    scheme, place, query = _split(url)
    given = {name: value for name, value in settings.items() if value is not None}
    if scheme not in BUILT_IN:
        cls = _from_entry_point(scheme, url)
        return cast("Executor", cls(url, **given))
    if place:
        raise ConfigError(f"{safe_url(url)}: local:// has no host or path: write local:// or local://?processes=4")
    merged = {**_read_query(query, url), **given}
    _refuse_unknown(merged, LOCAL_SETTINGS, url)
    return cast("Executor", _load(BUILT_IN[scheme])(**merged))


def _split(url: str) -> tuple[str, str, str]:
    """Part a URL into scheme, place and query; urllib would double the time that `TaskQueue()` takes."""
    scheme, mark, rest = url.partition("://")
    if not mark or not scheme:
        raise ConfigError(f"{safe_url(url)!r} is not the URL of a queue: write local://")
    place, _, query = rest.partition("?")
    return scheme.lower(), place.strip("/"), query


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module), attribute))


def _from_entry_point(scheme: str, url: str) -> Callable[..., Any]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads the disk; local:// never needs it

    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name == scheme:
            return cast("Callable[..., Any]", entry.load())
    raise _unknown_scheme(scheme, url, {*BUILT_IN, *(entry.name for entry in found)})


def _unknown_scheme(scheme: str, url: str, known: set[str]) -> ConfigError:
    names = ", ".join(f"{name}://" for name in sorted(known))
    if scheme in PLANNED:
        return ConfigError(f"{safe_url(url)}: this version of taskq has no {scheme}:// yet, only {names}")
    hint = did_you_mean(scheme, known) or f"; there is {names}"
    return ConfigError(f"{safe_url(url)}: there is no executor for {scheme}://{hint}")


# --- settings


def _read_query(query: str, url: str) -> dict[str, object]:
    if not query:
        return {}
    from urllib.parse import parse_qsl  # noqa: PLC0415 - most URLs have no query

    pairs = parse_qsl(query, keep_blank_values=True)
    _refuse_unknown([name for name, _ in pairs], QUERY_READERS, url)
    return {name: QUERY_READERS[name](name, text) for name, text in pairs}


def _refuse_unknown(names: Iterable[str], known: Iterable[str], url: str) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; the settings are {', '.join(known)}"
            raise ConfigError(f"{safe_url(url)}: there is no setting {name!r}{hint}")


def _count(name: str, text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(f"{name}={text!r} in the URL: give a whole number from 1 up")


def _start_method(name: str, text: str) -> str:
    if text in START_METHODS:
        return text
    raise ConfigError(f"{name}={text!r} in the URL: give one of {', '.join(START_METHODS)}")


def _truth(name: str, text: str) -> bool:
    try:
        return parse_truth(text)
    except ConfigError as exc:
        raise ConfigError(f"{name}={exc} in the URL") from None


#: What may stand in the query of a local:// URL, and what makes a value of it.
QUERY_READERS: dict[str, Callable[[str, str], object]] = {
    "processes": _count,
    "start_method": _start_method,
    "max_tasks_per_child": _count,
    "strict": _truth,
}

#: All settings of local://; functions cannot stand in a URL.
LOCAL_SETTINGS = (*QUERY_READERS, "initializer", "initargs")

"""The table of URL schemes: from a URL to the executor behind it.

    "local://?processes=4"  ──scheme──▶  BUILT_IN, a table of strings, else STORES, else entry points "taskq.executors"
                            ──query───▶  settings; what the caller gives by name wins over the query
                                         └──▶  the executor's class, called with the settings by name

    "sqlite:///q.db", "redis://host"  ──▶  STORES ──open_store──▶  a Store, called with the URL
                                                                     └──▶  DurableExecutor over it

Other distributions bring stores by entry points "taskq.stores": a scheme, and what is called with the URL for a Store.

The tables hold strings so that nothing is imported before a URL names it. A class that an entry point brings
is called as `cls(url, **settings)`: its URL says where; ours for `local://` needs no place.
"""

from __future__ import annotations

import gc
import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from taskq.context import clocks_paused, kept_keys
from taskq.errors import ConfigError, MissingExtra
from taskq.names import did_you_mean
from taskq.redact import KEYS_FILE_VARIABLE, KEYS_VARIABLE, safe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from taskq.executor import Executor
    from taskq.store import Store

__all__ = ["is_durable", "open_executor", "open_store", "open_worker", "safe_url"]

#: Scheme -> "module:class" of the executors of this distribution.
BUILT_IN = {"local": "taskq.executors.local:LocalExecutor"}

#: Scheme -> "module:class" of the stores in which durable jobs live.
STORES = {
    "sqlite": "taskq.executors.sqlite.store:SQLiteStore",
    "redis": "taskq.executors.rq.store:RQStore",
    "rediss": "taskq.executors.rq.store:RQStore",
    "unix": "taskq.executors.rq.store:RQStore",
}

#: The executor over any of them.
DURABLE = "taskq.executors.durable.executor:DurableExecutor"

#: What stands in front of a store where there are keys, and signs.
SIGNED = "taskq.signed:SignedStore"

#: What serves a store's queues.
WORKER = "taskq.executors.worker.worker:Worker"

#: Libraries of an extra: the module that may be missing -> how to install it.
EXTRAS = dict.fromkeys(("redis", "hiredis", "rq"), "pip install 'redis[hiredis]>=6' 'rq>=3.0,<3.1'")

#: Settings of a pool, which on a durable queue each worker has for itself.
WORKER_SETTINGS = ("processes", "start_method", "initializer", "initargs", "max_tasks_per_child", "queues")

#: The entry point groups by which other distributions bring executors, and stores: a URL's scheme names a class.
GROUP, STORE_GROUP = "taskq.executors", "taskq.stores"


def open_executor(url: str, settings: Mapping[str, object]) -> Executor:
    """Return a new executor for a URL; a setting that is None was not given.

    Raises:
        ConfigError: the URL has no known scheme, or a setting is unknown or senseless; passwords are masked.
        MissingExtra, BackendUnavailable, PoolBroken: from the executor itself.
    """
    scheme, place, query = _split(url)
    given = {name: value for name, value in settings.items() if value is not None}
    if scheme in STORES:
        _pass_over_pool_settings(given, url)
        return cast("Executor", _load(DURABLE)(open_store(url)))
    if scheme not in BUILT_IN:
        if _entry_point(STORE_GROUP, scheme) is not None:
            _pass_over_pool_settings(given, url)
            return cast("Executor", _load(DURABLE)(open_store(url)))
        cls = _from_entry_point(scheme, url)
        return cast("Executor", cls(url, **given))
    if place:
        raise ConfigError(f"{safe_url(url)}: local:// has no host or path: write local:// or local://?processes=4")
    merged = {**_read_query(query, url), **given}
    _refuse_unknown(merged, LOCAL_SETTINGS, url)
    return cast("Executor", _load(BUILT_IN[scheme])(**merged))


def is_durable(url: str) -> bool:
    """Return whether the jobs of this URL live in a store, and run in workers."""
    scheme = url.partition("://")[0].lower()
    return scheme in STORES or (scheme not in BUILT_IN and _entry_point(STORE_GROUP, scheme) is not None)


def open_store(url: str) -> Store:
    """Return the store of a durable URL, for clients and workers.

    `?max_bytes=` in the URL is how large an envelope and a result may be, `?lease=` after how many seconds without
    a word a worker is taken for dead, `?labels=` what labels show, `?signed_for=` how long signatures hold; all else in
    it is the store's own. With TASKQ_SIGNING_KEYS in the environment all that goes in and out is signed, see `signing`.

    Raises:
        ConfigError: the URL has no scheme of a store, or a setting is unknown or senseless; passwords are masked.
        MissingExtra: a library for it is not installed; says how to install it.
        BackendUnavailable, StoreDamaged: from the store itself.
    """
    scheme, _, query = _split(url)
    opens = _load(STORES[scheme]) if scheme in STORES else None
    if opens is None and scheme not in BUILT_IN:
        opens = _entry_point(STORE_GROUP, scheme)
    if opens is None:
        known = ", ".join(f"{name}://" for name in STORES)
        hint = did_you_mean(scheme, (*STORES, *BUILT_IN))
        if hint and scheme not in BUILT_IN:
            raise ConfigError(f"{safe_url(url)}: there is no {scheme}://{hint}")
        raise ConfigError(f"{safe_url(url)}: {scheme}:// keeps no jobs that workers could take: give one of {known}")
    place, common = _take_common(url, query)
    store = cast("Store", opens(place))
    for name, value in common.items():
        setattr(store, name, value)
    store.source = _source(store, url, query)
    if kept_keys() or os.environ.get(KEYS_VARIABLE) or os.environ.get(KEYS_FILE_VARIABLE):
        return cast("Store", _load(SIGNED)(store))
    return store


def _source(store: Store, url: str, query: str) -> str:
    """Return the URL that opens a store again from any folder."""
    if not url.lower().startswith("sqlite:"):
        return url
    common = [part for part in query.split("&") if part.partition("=")[0] in STORE_READERS]
    return store.url + "".join(
        f"{'&' if number or '?' in store.url else '?'}{part}" for number, part in enumerate(common)
    )


def open_worker(store: Store, **settings: Any) -> Any:
    """Return a worker for a store, with `run()` and `stop()`; its settings are those of the class behind `WORKER`."""
    return _load(WORKER)(store, **settings)


def _take_common(url: str, query: str) -> tuple[str, dict[str, Any]]:
    """Take what every store understands out of a URL, as attributes of `Store`."""
    common: dict[str, Any] = {}
    rest: list[str] = []
    for part in filter(None, query.split("&")):
        name, _, text = part.partition("=")
        if name in STORE_READERS:
            common[name] = STORE_READERS[name](name, text)
        else:
            rest.append(part)
    if "lease" in common:
        common["heartbeat_every"] = common["lease"] / HEARTBEATS
    place = url.partition("?")[0]
    return ("?".join((place, "&".join(rest))) if rest else place), common


def _pass_over_pool_settings(given: Mapping[str, object], url: str) -> None:
    """Say once that the settings of a pool belong to the workers here; refuse others, and `strict=False`."""
    _refuse_unknown(given, (*WORKER_SETTINGS, "strict"), url)
    if given.get("strict") is False:
        raise ConfigError(f"{safe_url(url)}: strict=False: nothing is ever pickled on this queue")
    unused = [name for name in given if name in WORKER_SETTINGS]
    if unused and not _told_unused:
        _told_unused.append(True)
        logging.getLogger("taskq").warning(
            "%s: %s %s for the workers that run its jobs: not used here, say it to `taskq worker`",
            safe_url(url),
            ", ".join(unused),
            "is" if len(unused) == 1 else "are",
        )


#: Whether it was said in this process already.
_told_unused: list[bool] = []


def _split(url: str) -> tuple[str, str, str]:
    """Part a URL into scheme, place and query; urllib would double the time that `TaskQueue()` takes."""
    scheme, mark, rest = url.partition("://")
    if not mark or not scheme:
        raise ConfigError(f"{safe_url(url)!r} is not the URL of a queue: {_written(url)}")
    place, _, query = rest.partition("?")
    return scheme.lower(), place.strip("/"), query


def _written(url: str) -> str:
    """Return how a URL is written that has no `://`."""
    ways = {"sqlite": "sqlite:///path/to.db", "redis": "redis://host/0", "rediss": "rediss://host/0"}
    scheme = url.partition(":")[0].partition("/")[0].lower()
    return f"write {ways.get(scheme, 'local://, sqlite:///path/to.db or redis://host/0')}"


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    collects = gc.isenabled()
    gc.disable()  # what an import makes is there to stay: to look through it for garbage takes 2 ms of every start
    try:
        with clocks_paused():  # a job's time limits count what it does, not what we import for it
            return cast("Callable[..., Any]", getattr(import_module(module), attribute))
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in EXTRAS:
            raise MissingExtra(f"this needs the library {missing}: {EXTRAS[missing]}", name=missing) from exc
        raise
    finally:
        if collects:
            gc.enable()


def _entry_points(group: str) -> Mapping[str, Any]:
    from importlib.metadata import entry_points  # noqa: PLC0415  # reads the disk; local:// never needs it

    return {entry.name: entry for entry in entry_points(group=group) if entry.group == group}


def _entry_point(group: str, scheme: str) -> Callable[..., Any] | None:
    """Return the class that another distribution brings for a scheme; None: none does."""
    found = _entry_points(group).get(scheme)
    return None if found is None else cast("Callable[..., Any]", found.load())


def _from_entry_point(scheme: str, url: str) -> Callable[..., Any]:
    found = _entry_point(GROUP, scheme)
    if found is not None:
        return found
    raise _unknown_scheme(scheme, url, {*BUILT_IN, *STORES, *_entry_points(GROUP), *_entry_points(STORE_GROUP)})


def _unknown_scheme(scheme: str, url: str, known: set[str]) -> ConfigError:
    names = ", ".join(f"{name}://" for name in sorted(known))
    hint = did_you_mean(scheme, known) or f"; there is {names}"
    return ConfigError(f"{safe_url(url)}: there is no executor for {scheme}://{hint}")


# --- settings


def _read_query(query: str, url: str) -> dict[str, object]:
    if not query:
        return {}
    from urllib.parse import parse_qsl  # noqa: PLC0415  # most URLs have no query

    pairs = parse_qsl(query, keep_blank_values=True)
    _refuse_unknown([name for name, _ in pairs], QUERY_READERS, url)
    return {name: QUERY_READERS[name](name, text) for name, text in pairs}


def _refuse_unknown(names: Iterable[str], known: Iterable[str], url: str) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; the settings are {', '.join(known)}"
            raise ConfigError(f"{safe_url(url)}: there is no setting {name!r}{hint}")


def _names(name: str, text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if all(found):
        return found
    raise ConfigError(f"{name}={text!r} in the URL: give names of queues, parted by commas")


def _count(name: str, text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(f"{name}={text!r} in the URL: give a whole number from 1 up")


def _start_method(name: str, text: str) -> str:
    from taskq.config import START_METHODS  # noqa: PLC0415  # 1 ms that a start without settings does not need

    if text in START_METHODS:
        return text
    raise ConfigError(f"{name}={text!r} in the URL: give one of {', '.join(START_METHODS)}")


def _truth(name: str, text: str) -> bool:
    from taskq.config import parse_truth  # noqa: PLC0415  # as in _start_method

    try:
        return parse_truth(text)
    except ConfigError as exc:
        raise ConfigError(f"{name}={exc} in the URL") from None


def _lease(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_LEASE <= seconds <= LONGEST_LEASE:
        raise ConfigError(f"{name}={text!r} in the URL: give seconds from {SHORTEST_LEASE:g} to {LONGEST_LEASE:g}")
    return seconds


def _signed_for(name: str, text: str) -> float:
    from taskq.durations import parse_duration  # noqa: PLC0415  # as in _start_method

    try:
        seconds = parse_duration(text)
    except ConfigError as exc:
        raise ConfigError(f"{name}={exc} in the URL") from None
    if seconds >= SHORTEST_SIGNATURE:
        return seconds
    raise ConfigError(f"{name}={text!r} in the URL: give a time from {SHORTEST_SIGNATURE:g} s up, as 7d")


def _labels(name: str, text: str) -> str:
    if text not in ("full", "types"):
        raise ConfigError(f"{name}={text!r} in the URL: give full or types")
    return text


#: Seconds that a lease may last. Shorter, and a busy machine is taken for a dead one.
SHORTEST_LEASE = 3.0
LONGEST_LEASE = 86_400.0

#: Seconds that a signature must hold: the clocks of machines differ.
SHORTEST_SIGNATURE = 60.0

#: How often a worker renews in the time of one lease.
HEARTBEATS = 3

#: What may stand in the query of every store's URL: an attribute of `Store`, and what makes a value of it.
STORE_READERS: dict[str, Callable[[str, str], Any]] = {
    "max_bytes": _count,
    "lease": _lease,
    "labels": _labels,
    "signed_for": _signed_for,
}

#: What may stand in the query of a local:// URL, and what makes a value of it.
QUERY_READERS: dict[str, Callable[[str, str], object]] = {
    "processes": _count,
    "start_method": _start_method,
    "max_tasks_per_child": _count,
    "queues": _names,
    "strict": _truth,
}

#: All settings of local://; functions cannot stand in a URL.
LOCAL_SETTINGS = (*QUERY_READERS, "initializer", "initargs")

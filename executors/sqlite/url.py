"""From `sqlite:///path?durability=full` to a path and what a commit waits for.

    sqlite:///var/lib/app/queue.db    three slashes: an absolute path (four mean the same)
    sqlite:///./queue.db              in the working directory
    sqlite:///~/queue.db              in the home directory

SQLAlchemy reads three slashes as a relative path. Here they begin an absolute one, as in every other URL; whoever
writes four, as SQLAlchemy wants it for absolute paths, gets what he means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from taskq.errors import ConfigError
from taskq.names import did_you_mean
from taskq.redact import safe_url

__all__ = ["Place", "parse"]

CURE = "write sqlite:///absolute/path.db, sqlite:///./here.db or sqlite:///~/home.db"
#: The settings of a URL, and what each may say; the first is the default. `mode` as in SQLite's own URLs: rwc makes
#: a file that is not there, rw does not, ro only reads, from a copy where the file system allows nothing else.
SETTINGS = {"durability": ("full", "normal"), "shared": ("0", "1"), "mode": ("rwc", "rw", "ro")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a queue file is. `full`: a job is on the disk before `submit` returns, not only in the kernel's memory.

    `shared`: other users may own or open it. `mode`: see SETTINGS.
    """

    path: Path
    full: bool = True
    shared: bool = False
    mode: str = "rwc"

    @property
    def url(self) -> str:
        """The URL that leads here from any working directory."""
        settings = ["durability=normal"] * (not self.full) + ["shared=1"] * self.shared
        return f"sqlite://{quote(str(self.path))}" + ("?" + "&".join(settings) if settings else "")


def parse(url: str) -> Place:
    """Read the URL of a queue file.

    Raises:
        ConfigError: it names no file, or has a query that is not understood.
    """
    scheme, mark, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if scheme.lower() != "sqlite" or not mark:
        raise ConfigError(f"{safe_url(url)!r} is not the URL of a queue file: {CURE}")
    if not place.startswith("/"):
        raise ConfigError(f"{safe_url(url)}: {_complaint(place)}: {CURE}")
    chosen = _settings(url, query)
    return Place(
        path=_path(url, unquote(place)),
        full=chosen["durability"] == "full",
        shared=chosen["shared"] == "1",
        mode=chosen["mode"],
    )


def _complaint(place: str) -> str:
    if not place:
        return "it names no file"
    return f"a queue file is on no host, and {safe_url(place.partition('/')[0])!r} stands where a host would"


def _path(url: str, text: str) -> Path:
    inner = text.lstrip("/")
    if inner.startswith(":memory:"):
        raise ConfigError(f"{safe_url(url)}: a queue in memory is local://")
    if not inner or text.endswith("/"):
        raise ConfigError(f"{safe_url(url)}: it names a folder, not a file: {CURE}")
    if "\0" in inner:
        raise ConfigError(f"{safe_url(url)}: a path cannot have a zero byte in it")
    first = inner.partition("/")[0]
    if first in {".", ".."}:
        return (Path.cwd() / inner).resolve()
    return Path(inner).expanduser() if first.startswith("~") else Path("/" + inner)


def _settings(url: str, query: str) -> dict[str, str]:
    chosen = {name: values[0] for name, values in SETTINGS.items()}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in SETTINGS:
            hint = did_you_mean(name, SETTINGS) or f"; the settings are {', '.join(SETTINGS)}"
            raise ConfigError(f"{safe_url(url)}: there is no setting {name!r}{hint}")
        if value not in SETTINGS[name]:
            raise ConfigError(f"{safe_url(url)}: {name}={value!r}: give one of {', '.join(SETTINGS[name])}")
        chosen[name] = value
    return chosen

"""Log lines by structlog, which is imported only when a line is to be written.

    taskq code ──get_logger(name).warning(event, ...)──▶ silent, unless
        the application configured structlog itself  ──▶ its processors
        configure(format, level) was called (the CLI) ──▶ stderr, as text or as JSON

A library must not print on its own, and importing structlog takes longer than all of taskq.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

from taskq.errors import ConfigError
from taskq.redact import redacted

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import ModuleType

__all__ = ["LEVELS", "LogFormat", "Logger", "chosen_format", "configure", "get_logger", "silence"]

LogFormat = Literal["console", "json"]

#: The levels by name, with the numbers of the standard library.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


#: What turns the order of signs around, or ends a line.
TURNING = r"[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"


#: What a terminal obeys; in fields structlog escapes it.
CONTROL = r"[\x00-\x08\x0a-\x1f\x7f-\x9f]"


class _Chosen:
    """The choices of `configure`, kept until the first line needs them."""

    def __init__(self) -> None:
        self.format: LogFormat | None = None
        self.level = 0
        self.applied: tuple[LogFormat, int] | None = None


_chosen = _Chosen()


class Logger:
    """The writer of log lines under one name; safe in any thread, and nearly free while no handler listens."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **fields: object) -> None:
        """Log what only a developer of taskq wants to know."""
        self._emit("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Log that something normal happened."""
        self._emit("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log something that went wrong and was dealt with."""
        self._emit("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log something that went wrong and needs a person."""
        self._emit("error", event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log an error with the traceback of the exception being handled."""
        self._emit("error", event, {"exc_info": True, **fields})

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:
        structlog = _listening(LEVELS[level])
        if structlog is not None:
            getattr(structlog.get_logger(self._name).bind(logger=self._name), level)(event, **fields)


def get_logger(name: str) -> Logger:
    """Return the logger of a module, as `get_logger(__name__)`."""
    return Logger(name)


def configure(format: LogFormat = "console", level: str = "warning") -> None:  # noqa: A002  # the flag's name
    """Write the log lines of this process to stderr, from `level` upwards, secrets masked.

    Raises:
        ConfigError: there is no such format or level.
    """
    if format not in ("console", "json"):
        raise ConfigError(f"log format {format!r}: write console or json")
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r}: write one of {', '.join(LEVELS)}")
    _chosen.format, _chosen.level = format, LEVELS[level]


def chosen_format() -> LogFormat | None:
    """Return the format that `configure` was called with; None when it was not."""
    return _chosen.format


def silence() -> None:
    """Take back what `configure` did."""
    structlog = sys.modules.get("structlog")
    if _chosen.applied is not None and structlog is not None:
        structlog.reset_defaults()
    _chosen.format = _chosen.applied = None


def _listening(level: int) -> ModuleType | None:
    """Return structlog when a line of this level has a reader."""
    if _chosen.format is not None:
        return _configured(_chosen.format) if level >= _chosen.level else None
    structlog = sys.modules.get("structlog")
    return structlog if structlog is not None and structlog.is_configured() else None


def _configured(format: LogFormat) -> ModuleType:  # noqa: A002  # the flag's name
    import structlog  # noqa: PLC0415  # takes 0.1 s and more; most runs never write a line

    if _chosen.applied != (format, _chosen.level):
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,  # before the mask: a traceback tells what an error does
                _mask,
                *_renderers(structlog, format),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_chosen.level),
            logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
            cache_logger_on_first_use=False,
        )
        _chosen.applied = (format, _chosen.level)
    return structlog


def _renderers(structlog: Any, format: LogFormat) -> list[Any]:  # noqa: A002  # the flag's name
    if format == "json":
        return [structlog.processors.JSONRenderer(default=str)]
    colors = sys.stderr is not None and sys.stderr.isatty()
    plain = structlog.dev.plain_traceback  # boxes and local variables belong in a debugger
    return [_show, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _show(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep what comes from jobs from looking like lines of this log, or turning its signs around.

    A traceback has lines of its own, which are indented.
    """
    import re  # noqa: PLC0415  # structlog has imported it

    shown = {name: re.sub(TURNING, _escaped, value) if type(value) is str else value for name, value in event.items()}
    if isinstance(trace := shown.get("exception"), str):
        shown["exception"] = "\n".join(f"    {re.sub(CONTROL, _escaped, line)}" for line in trace.splitlines())
    return shown


def _escaped(match: Any) -> str:
    return f"\\u{ord(match[0]):04x}"


def _mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    masked: dict[str, Any] = redacted(dict(event))
    return masked

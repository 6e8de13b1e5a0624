"""Logging: silent by default, the application's when it has one, stderr for the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from taskq import log
from taskq.errors import ConfigError
from tests.scripts import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Leave no configuration behind."""
    yield
    log.silence()
    structlog.reset_defaults()


def test_silent_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    """A library that nobody configured says nothing, structlog imported or not."""
    log.get_logger("taskq.x").error("boom", value=1)
    assert capfd.readouterr() == ("", "")


def test_nothing_imports_structlog_until_a_line_is_due(tmp_path: Path) -> None:
    """Neither import, nor configure, nor a line below the level pays for structlog."""
    source = """
        import sys
        import taskq
        from taskq import log
        log.get_logger("x").error("nobody listens")
        log.configure("console", "warning")
        log.get_logger("x").info("below the level")
        assert "structlog" not in sys.modules
        log.get_logger("x").warning("due")
        assert "structlog" in sys.modules
    """
    assert "due" in run(tmp_path, source).stderr


def test_lines_go_to_the_application_that_configured_structlog() -> None:
    """What the application set up receives our lines, with the logger's name."""
    seen: list[dict[str, Any]] = []

    def keep(_logger: object, method: str, event: Any) -> Any:
        seen.append({**event, "method": method})
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    log.get_logger("taskq.pool").warning("crashed", job="1")
    assert seen == [{"event": "crashed", "job": "1", "logger": "taskq.pool", "method": "warning"}]


def test_json_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object a line: event, level, logger, UTC time, fields; stdout stays empty."""
    log.configure("json", "info")
    log.get_logger("taskq.pool").info("started", pid=7, path=sys)
    out, err = capsys.readouterr()
    line = json.loads(err)
    assert out == ""
    assert (line["event"], line["level"], line["logger"], line["pid"]) == ("started", "info", "taskq.pool", 7)
    assert line["timestamp"].endswith("Z")


def test_console_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """People get text, without colours where there is no terminal."""
    log.configure("console", "debug")
    log.get_logger("taskq.pool").debug("started", pid=7)
    out, err = capsys.readouterr()
    assert out == ""
    assert "started" in err
    assert "pid=7" in err
    assert "\x1b" not in err


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), ("critical", 0)])
def test_the_level_decides(level: str, heard: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines below the chosen level are not written."""
    log.configure("json", level)
    logger = log.get_logger("x")
    for say in (logger.debug, logger.info, logger.warning, logger.error):
        say("line")
    assert len(capsys.readouterr().err.splitlines()) == heard


def test_secrets_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a field with a telling name nor a password in a URL reaches the log."""
    log.configure("json", "info")
    log.get_logger("x").info("connected to redis://a:s3cret@h", password="s3cret", extra={"token": "s3cret"})
    err = capsys.readouterr().err
    assert "s3cret" not in err
    assert "***" in err


def test_an_exception_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """`exception` adds the traceback as one field of the line."""
    log.configure("json", "info")
    try:
        1 / 0  # noqa: B018 - the error is the point
    except ZeroDivisionError:
        log.get_logger("x").exception("failed")
    line = json.loads(capsys.readouterr().err)
    assert "ZeroDivisionError" in line["exception"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_tells_no_secret(form: log.LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    """What an error says stands in its traceback too."""
    log.configure(form)
    try:
        int("cannot reach redis://ann:s3cret@host, password=s3cret")
    except ValueError:
        log.get_logger("test").exception("failed")
    told = capsys.readouterr().err
    assert "redis://ann:***@host, password=***" in told
    assert "s3cret" not in told


def test_a_job_s_words_are_no_lines_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a field nor a traceback begins a line, moves the cursor, or turns signs around."""
    log.configure("console", "info")
    evil = "x\x1b[2J\u202egpj\n2026-01-01T00:00:00Z [info] all is well\r\x9b31m\u2028y"
    log.get_logger("x").info("failed", error=evil, exception=f"Traceback\nValueError: {evil}")
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert sum(line.startswith("20") for line in lines) == 1
    assert "    ValueError: x" in lines[2]
    assert not set(err.replace("\n", "")) & set("\x1b\u202e\r\x9b\u2028")


def test_configure_again_takes_over(capsys: pytest.CaptureFixture[str]) -> None:
    """The last word counts; `silence` ends it."""
    log.configure("json", "info")
    log.get_logger("x").info("one")
    log.configure("json", "error")
    log.get_logger("x").info("two")
    log.silence()
    log.get_logger("x").error("three")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["one"]
    assert log.chosen_format() is None


def test_unknown_format_and_level_are_refused() -> None:
    """The message lists what there is."""
    with pytest.raises(ConfigError, match="console or json"):
        log.configure("xml")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="debug, info, warning"):
        log.configure("json", "loud")

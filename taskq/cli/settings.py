"""`taskq config show`: every setting, its value, and where it comes from."""

from __future__ import annotations

from typing import Any

import click

from taskq.cli.emit import emit
from taskq.cli.exits import Exit
from taskq.cli.stores import default_store_url
from taskq.cli.tables import Column, table
from taskq.config import Settings, trace
from taskq.redact import safe_url

__all__ = ["config"]

HELP = """Show the settings.

\b
Examples:
  taskq config show
"""

SHOW_HELP = """Show every setting, its value, and where it comes from; passwords are masked.

A flag wins over TASKQ_* in the environment, that over taskq.toml, that over [tool.taskq] in pyproject.toml.

\b
Examples:
  taskq config show
  taskq config show --json
"""

COLUMNS = (
    Column(name="SETTING"),
    Column(name="VALUE", least=12),
    Column(name="FROM", least=12, rank=1),
)


@click.group("config", help=HELP, short_help="Show the settings and where they come from.")
def config() -> None:
    """Hold the commands."""


@config.command("show", help=SHOW_HELP, short_help="Show every setting.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def show(*, as_json: bool) -> int:
    """Run the command."""
    rows = _rows()
    emit(
        lambda: {"settings": {name: {"value": value, "from": place} for name, value, place in rows}},
        lambda screen: table(COLUMNS, [(name, _shown(value), place) for name, value, place in rows], screen),
        as_json=as_json,
    )
    return Exit.OK


def _rows() -> list[tuple[str, Any, str]]:
    said = trace()
    defaults = Settings()
    rows = []
    for name in Settings.field_names():
        value, place = said.get(name, (getattr(defaults, name), "default"))
        if name == "url" and place == "default":
            value, place = default_store_url(), "default; in code and for taskq map it is local://"
        rows.append((name, safe_url(value) if isinstance(value, str) else value, place))
    return rows


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

"""docs/security.md names tests that exist, and is found from where people look."""

from __future__ import annotations

import ast
import re

import pytest

from tests.project.commands import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")

NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_named_tests_exist(path: str, name: str) -> None:
    """What the table names is a test function of that file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_row_names_a_test() -> None:
    """No claim of the table stands without a test."""
    rows = [line for line in TEXT.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    assert all("::test_" in row for row in rows)
    assert len(NAMED) > 30


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md"])
def test_it_is_linked(name: str) -> None:
    """README and SECURITY.md lead to it."""
    assert "(docs/security.md)" in (ROOT / name).read_text("utf-8")

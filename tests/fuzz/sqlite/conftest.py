"""Fixtures: the queue file, stores and workers of the tests on SQLite."""

from __future__ import annotations

from tests.sqlite.conftest import join, open_store, path, store, url

__all__ = ["join", "open_store", "path", "store", "url"]

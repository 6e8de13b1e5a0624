"""Fixtures: the database, store and workers of the tests on Redis."""

from __future__ import annotations

from tests.rq.conftest import client, join, store, url

__all__ = ["client", "join", "store", "url"]

# ruff: noqa: INP001 - a folder of files that is copied, no package
"""A module that cannot be imported."""

from __future__ import annotations

raise RuntimeError("half configured")

"""Tests of taskq: a package, so that child processes import its task functions by name."""

from __future__ import annotations

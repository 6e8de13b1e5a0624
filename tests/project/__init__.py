"""Tests of the project as a newcomer meets it: its package, its README, its examples, its set-up."""

from __future__ import annotations

"""What only the local executor has."""

from __future__ import annotations

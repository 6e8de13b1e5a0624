"""The one suite that every executor has to pass, on each of its variants."""

from __future__ import annotations

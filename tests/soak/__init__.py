"""Long runs, left out of `make test`: `pytest -m soak`."""

from __future__ import annotations

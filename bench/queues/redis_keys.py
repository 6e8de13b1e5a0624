"""Ask Redis how many of many keys are there."""

from __future__ import annotations

from typing import Any

#: Keys of one command.
BATCH = 2_000


def count_keys(client: Any, keys: list[str]) -> int:
    """Return how many of these keys exist."""
    return sum(client.exists(*keys[start : start + BATCH]) for start in range(0, len(keys), BATCH))

"""The types that occur anywhere in a value, and how deep it is: a look at all of it at the speed of C.

The value is taken level by level; each level is one pass of `set(map(type, ...))` over the items of all
its containers, some 15 ns an item. Objects of other types are taken as leaves.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CONTAINERS", "TooDeep", "survey"]

#: The types whose items are looked at.
CONTAINERS = frozenset({list, dict, tuple, set, frozenset})


class TooDeep(ValueError):
    """Say that a value holds more containers within containers than allowed."""


def survey(value: Any, max_depth: int | None = None) -> set[type]:
    """Return the exact types of a value and of everything in it.

    Raises:
        TooDeep: it is nested deeper than `max_depth` levels; a list of plain items has one.
    """
    kinds = {type(value)}
    found = set(kinds)
    level = [value]
    depth = 0
    while not kinds.isdisjoint(CONTAINERS):
        depth += 1
        if max_depth is not None and depth > max_depth:
            raise TooDeep(f"it is nested deeper than {max_depth} levels")
        containers = level if kinds <= CONTAINERS else [item for item in level if type(item) in CONTAINERS]
        holds_dicts = dict in kinds
        kinds = set(map(type, _items(containers, holds_dicts=holds_dicts)))
        found |= kinds
        level = [] if kinds.isdisjoint(CONTAINERS) else list(_items(containers, holds_dicts=holds_dicts))
    return found


def _items(containers: list[Any], *, holds_dicts: bool) -> Iterator[Any]:
    """Yield the items of all containers, of dicts their keys and values."""
    items = chain.from_iterable(containers)
    if not holds_dicts:
        return items
    dicts = [container for container in containers if type(container) is dict]
    return chain(items, chain.from_iterable(map(dict.values, dicts)))

"""The names of classes."""

from __future__ import annotations

__all__ = ["qualified_name"]


def qualified_name(cls: type) -> str:
    """Return a class's name as "module.Qualname", builtins without their module."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"

"""The names of classes; and of the module that a program was started from, as other processes import it."""

from __future__ import annotations

import os
import sys

__all__ = ["main_module", "portable_name", "qualified_name"]


def qualified_name(cls: type) -> str:
    """Return a class's name as "module.Qualname", builtins without their module."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def portable_name(cls: type) -> str:
    """Return a class's name as other processes have it, whose main program is another."""
    name = qualified_name(cls)
    if cls.__module__ != "__main__":
        return name
    return f"{main_module() or '__main__'}.{cls.__qualname__}"


def main_module() -> str:
    """Return the name by which the main program could be imported, whoever's program it is; empty: it cannot be."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":  # python -m package.module
        return str(spec.name)
    path = getattr(main, "__file__", None)
    name = os.path.basename(path)[:-3] if isinstance(path, str) and path.endswith(".py") else ""  # noqa: PTH119  # see test_loads_no_module_that_few_need
    return name if name.isidentifier() and _is_found(name, str(path)) else ""


def _is_found(name: str, path: str) -> bool:
    """Return whether an import of the name would find this file; nothing is imported."""
    from importlib.machinery import PathFinder  # noqa: PLC0415  # only where a program is its own tasks' module

    try:
        spec = PathFinder.find_spec(name)
        return spec is not None and spec.origin is not None and os.path.samefile(spec.origin, path)  # noqa: PTH121
    except (OSError, ValueError):
        return False

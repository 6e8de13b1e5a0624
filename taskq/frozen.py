"""Frozen: the base of values with named fields and defaults, for the classes that every start of a program needs.

A frozen keyword-only dataclass in all but the cost: `dataclasses` imports `inspect` and compiles four methods for each
class, 8 ms of a start that should take 50. Classes that are not loaded at every start are dataclasses.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, dataclass_transform

__all__ = ["Frozen"]

#: Stands for the value of a field that has no default.
_REQUIRED = object()


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Frozen:
    """The base of a class whose annotated names are its fields; `check` may refuse their values.

    Equal when of one class with equal fields; can be hashed when these can, copied, and pickled.
    """

    #: The fields in their order, each with its default.
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        cls._defaults = {name: cls.__dict__.get(name, _REQUIRED) for name in cls.__annotations__}

    def __init__(self, **values: Any) -> None:
        fields = {**self._defaults, **values}
        if len(fields) != len(self._defaults) or any(value is _REQUIRED for value in fields.values()):
            raise TypeError(self._misfit(values))
        self.__dict__.update(fields)
        self.check()

    def check(self) -> None:
        """Refuse values that make no sense."""

    def _misfit(self, values: dict[str, Any]) -> str:
        unknown = sorted(values.keys() - self._defaults.keys())
        missing = [name for name, value in self._defaults.items() if value is _REQUIRED and name not in values]
        return f"{type(self).__name__}(): unknown fields {unknown}, missing fields {missing}"

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of the fields in their order."""
        return tuple(cls._defaults)

    def changed(self, **values: Any) -> Self:
        """Return a copy with some fields changed, checked like a new one."""
        return type(self)(**{**self.__dict__, **values})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: make another one, to set {name}={value!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

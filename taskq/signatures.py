"""Calls that a function takes: a wrong or missing argument is found where the job is submitted, not where it runs.

    submit ──(number of arguments, keywords)──▶ in `shapes`: it was looked at before ──▶ go on
                                                not: `check` ──▶ add it, or TaskRefused

Only plain functions are looked at, by their code objects: of all else the interpreter knows too little beforehand, and
`inspect` is imported only for the words of an error. A decorator's wrapper is taken as it stands, not as what it wraps.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from taskq.errors import TaskRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["Shape", "check", "shape_of"]

#: How many arguments come by place; where there are keywords, that and their names.
Shape: TypeAlias = "int | tuple[int | str, ...]"

#: Flags of code objects that take any number of arguments by place, and by keyword (see `inspect.CO_VARARGS`).
_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08

#: Shapes kept of one function: those of a `**keywords` are without end.
_KEPT: Final = 256


def shape_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shape:
    """Return what of a call decides whether a function takes it."""
    return (len(args), *kwargs) if kwargs else len(args)


def check(
    shapes: set[Shape], name: str, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """See that a function takes a call, and add the call's shape to the `shapes` that it is known to take.

    Raises:
        TaskRefused: it does not; the message says what it takes, and what is wrong.
    """
    if isinstance(fn, FunctionType) and not _takes(fn, len(args), kwargs):
        import inspect  # noqa: PLC0415  # wanted after a mistake only, not at start-up

        signature = inspect.signature(fn, follow_wrapped=False)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
            raise TaskRefused(f"{name} takes {inspect.Signature(bare)}: {error}") from None
    if len(shapes) < _KEPT:
        shapes.add(shape_of(args, kwargs))


def _takes(fn: FunctionType, count: int, keywords: Collection[str]) -> bool:
    code = fn.__code__
    by_place, only_by_place = code.co_argcount, code.co_posonlyargcount
    names = code.co_varnames[: by_place + code.co_kwonlyargcount]
    if count > by_place and not code.co_flags & _VARARGS:
        return False
    named = names[only_by_place:]
    if not (code.co_flags & _VARKEYWORDS or set(keywords).issubset(named)):
        return False
    if any(name in keywords for name in names[only_by_place : min(count, by_place)]):  # given twice
        return False
    needed = names[count : by_place - len(fn.__defaults__ or ())]
    here = {*keywords}.intersection(named)
    also = [name for name in names[by_place:] if name not in (fn.__kwdefaults__ or {})]
    return here.issuperset(needed) and here.issuperset(also)

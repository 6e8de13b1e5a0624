"""The careful way to encode: turn a value into what msgpack packs as it is, and name what stands in the way.

`codec.encode` comes here when the quick way failed, to learn which part of the value is to blame, and for
values that hold a bytearray, which the quick way would turn into bytes.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from msgpack import ExtType  # type: ignore[import-untyped]

from taskq.codec.extensions import NATIVE, object_packer_of, odd_text, packer_of, reference
from taskq.codec.survey import CONTAINERS
from taskq.codec.wire import FIRST_RESERVED
from taskq.errors import EncodeError, SoftTimeout
from taskq.names import qualified_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["form_of", "lower"]

#: The integers that msgpack has a form for.
SMALLEST_INT, LARGEST_INT = -(2**63), 2**64 - 1

#: Characters of a key that a path shows.
SHOWN = 40

#: Types whose `repr` is short, or cheap to cut, and their own.
SHOWN_TYPES = frozenset({type(None), bool, int, float, str, bytes})

#: Steps of a path shown at either end of a long one.
SHOWN_STEPS = 8

#: Where a value stands: the path to its container and the step from there, or None at the root.
Path: TypeAlias = "tuple[Path, str] | None"


def lower(value: Any, *, root: str, max_depth: int | None, refer: Callable[[Any], str | None] | None = None) -> Any:
    """Return a value with everything that msgpack cannot carry as it is replaced by extensions.

    Raises:
        EncodeError: a part cannot travel; its path begins with `root`.
    """
    try:
        return _Lowering(root, max_depth, refer).lower(value, None, 0)
    except RecursionError:
        raise EncodeError("it is nested too deeply", root) from None


class Lowered:
    """Stand for a dict's key that was lowered to a list, which as such could not be a key."""

    __slots__ = ("form",)

    def __init__(self, form: list[Any]) -> None:
        self.form = form


class _Lowering:
    """Walk one value, keeping the ids of the containers that surround the current part."""

    def __init__(self, root: str, max_depth: int | None, refer: Callable[[Any], str | None] | None) -> None:
        self.root = root
        self.refer = refer
        self.max_depth = max_depth
        self.around: set[int] = set()

    def lower(self, value: Any, path: Path, depth: int) -> Any:
        kind = type(value)
        if kind is list or kind is dict:
            depth = self.enter(value, path, depth)
            lowered = (self.items if kind is list else self.mapping)(value, path, depth)
            self.around.discard(id(value))
            return lowered
        if kind in NATIVE and kind is not bytearray and (kind is not int or _fits(value)):
            self.check_native(value, path)
            return odd_text(value) if kind is str and not _is_unicode(value) else value
        packed = self.packed(value, path)
        return packed if type(packed) is ExtType else self.headed(value, packed, path, depth)

    def enter(self, value: Any, path: Path, depth: int) -> int:
        """Return the depth of the items of a container, having checked that it may be entered."""
        if id(value) in self.around:
            raise self.refusal("it contains itself", path)
        if self.max_depth is not None and depth >= self.max_depth:
            raise self.refusal(f"it is nested deeper than {self.max_depth} levels", path)
        self.around.add(id(value))
        return depth + 1

    def items(self, value: list[Any], path: Path, depth: int) -> list[Any]:
        return [self.lower(item, (path, f"[{i}]"), depth) for i, item in enumerate(value)]

    def mapping(self, value: dict[Any, Any], path: Path, depth: int) -> dict[Any, Any]:
        lowered = {}
        for key, item in value.items():
            shown = _shown(key)
            form = self.lower(key, (path, f".key({shown})"), depth)
            new_key = Lowered(form) if type(form) is list else form
            lowered[new_key] = self.lower(item, (path, f"[{shown}]"), depth)
        return lowered

    def headed(self, value: Any, packed: list[Any], path: Path, depth: int) -> list[Any]:
        """Lower the items behind a head; what a registered object was packed to starts at depth 0."""
        kind = type(value)
        inner = self.enter(value, path, depth if kind in CONTAINERS else -1)
        lowered = [packed[0]]
        for i, item in enumerate(packed[1:]):
            step = f"[{i}]" if kind is tuple else f".item({_shown(item)})"
            step = step if kind in CONTAINERS else f"<{kind.__qualname__}>"
            lowered.append(self.lower(item, (path, step), inner))
        self.around.discard(id(value))
        return lowered

    def packed(self, value: Any, path: Path) -> Any:
        """Return the extension of a value, or the array with a head that stands for it."""
        packer = packer_of(type(value)) or object_packer_of(type(value))
        if packer is None and self.refer is not None and (job_id := self.refer(value)) is not None:
            return reference(job_id)
        if packer is None:
            raise self.refusal(_why_not(value), path)
        try:
            return packer(value)
        except SoftTimeout:
            raise
        except Exception as exc:
            name = qualified_name(type(value))
            raise self.refusal(f"this {name} cannot be packed: {_reason(exc)}", path) from exc

    def check_native(self, value: Any, path: Path) -> None:
        """Refuse the few values that msgpack would pack wrongly, or fail at."""
        if type(value) is memoryview:
            raise self.refusal("a memoryview has memory of its own process only: pass bytes(view)", path)
        if type(value) is ExtType and value.code >= FIRST_RESERVED:
            raise self.refusal(f"the codes of a msgpack.ExtType end at {FIRST_RESERVED - 1} here", path)

    def refusal(self, problem: str, path: Path) -> EncodeError:
        steps = []
        while path is not None:
            path, step = path
            steps.append(step)
        steps.reverse()
        if len(steps) > 2 * SHOWN_STEPS:
            steps[SHOWN_STEPS:-SHOWN_STEPS] = ["..."]
        return EncodeError(problem, self.root + "".join(steps))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits(value: int) -> bool:
    return SMALLEST_INT <= value <= LARGEST_INT


def _shown(value: Any) -> str:
    """Return a short text for a key, without running code of the user's on the way."""
    if type(value) in SHOWN_TYPES:
        text = repr(value)
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f"<{type(value).__qualname__}>"


def _reason(exc: Exception) -> str:
    text = str(exc)
    return text if type(exc) is ValueError and text else f"{type(exc).__name__}: {text}"


def _why_not(value: Any) -> str:
    """Say why there is no packer for a value, and what to do."""
    kind = type(value)
    name = qualified_name(kind)
    if isinstance(value, Enum):
        return f"the enum {name} is not registered: call taskq.codec.register({kind.__qualname__}) in its module"
    if dataclasses.is_dataclass(kind):
        return f"the dataclass {name} is not registered: put @taskq.codec.register on it"
    for plain in (str, bytes, int, float, dict, list, tuple, set, frozenset):
        if isinstance(value, plain):
            return (
                f"{name} is a subclass of {plain.__name__} and would come out as a plain one: pass "
                f"{plain.__name__}(value), or register it with taskq.codec.register"
            )
    return f"object of type {name}: pass plain data instead, or register it with taskq.codec.register"


def form_of(key: Lowered) -> list[Any]:
    """Return what stands for a lowered key; the hook to pack what `lower` returned."""
    return key.form

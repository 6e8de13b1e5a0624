"""Encoding: the quick way by msgpack's own packer, the careful way where that would fail or bend a type.

msgpack turns bytearrays into bytes without a word. They end up as its "bin" type, so a message without a
byte that could begin a bin is beyond doubt; any other costs a scan of the types in the value.

The careful way turns a value into what msgpack packs as it is (`_lower`), and names the part that stands in the way. It
runs when the quick way failed, and for values that hold a bytearray, which the quick way would turn into bytes.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from msgpack import ExtType, Packer  # type: ignore[import-untyped]

from taskq.codec.decoding import CONTAINERS, FREE_STEPS, TooDeep, decode, scan_types
from taskq.codec.extensions import NATIVE, object_packer_of, odd_text, packer_of, reference
from taskq.codec.wire import FIRST_RESERVED, MAX_DEPTH
from taskq.errors import DecodeError, EncodeError, SoftTimeout
from taskq.locks import pass_on
from taskq.names import qualified_name

if TYPE_CHECKING:
    from collections.abc import Callable

#: Returns the id of the job that a value is a handle to, or None when it is none.
Refer: TypeAlias = "Callable[[Any], str | None]"

__all__ = ["Refer", "encode"]

#: Types of which nothing but the value itself is in the message.
ATOMS = frozenset({type(None), bool, int, float, str, bytes})

#: Types that msgpack packs by itself though it should not: as bytes, or as an extension type of any code.
WATCHED = frozenset({bytearray, memoryview, ExtType})

#: First bytes of msgpack's three bin forms. They occur within numbers and text too: a hint, no proof.
BIN8, BIN16, BIN32 = 0xC4, 0xC5, 0xC6

#: Bytes of a message above which its packer is let go: a packer keeps a buffer for its largest message.
KEPT_BUFFER = 4 * 1_048_576


class _Session:
    """A packer, and what its hook met during one call."""

    __slots__ = ("extended", "pack", "payloads", "refer")

    def __init__(self) -> None:
        #: Whether any value needed an extension.
        self.extended = False
        #: What registered objects were packed to; a scan does not see into the objects themselves.
        self.payloads: list[Any] = []
        self.refer: Refer | None = None
        self.pack: Callable[[Any], bytes] = Packer(strict_types=True, default=self.extend).pack

    def extend(self, value: Any) -> Any:
        """Return what stands for a value that msgpack has no type for."""
        self.extended = True
        packer = packer_of(type(value))
        if packer is not None:
            return packer(value)
        packer = object_packer_of(type(value))
        if packer is None and self.refer is not None and (job_id := self.refer(value)) is not None:
            return reference(job_id)
        if packer is None:
            raise TypeError(f"no packer for {type(value)}")
        form = packer(value)
        self.payloads.append(form[1])
        return form

    def reset(self) -> None:
        """Forget the call."""
        self.extended = False
        self.payloads.clear()


#: Sessions at rest. Each serves one call at a time: while a hook runs, so may other threads, and a hook
#: may encode in its turn.
_idle: list[_Session] = []


def encode(
    value: Any,
    *,
    limit: int | None = None,
    max_depth: int | None = MAX_DEPTH,
    root: str = "value",
    refer: Refer | None = None,
) -> bytes:
    """Return a value as bytes that `decode` turns into an equal value of the same types.

    What cannot travel so is refused, never changed: subclasses of builtin types and enums unless
    registered, functions, open files, text that is not valid Unicode. `limit` is in bytes. `max_depth`
    None is for messages to this very program, to be read with `max_depth` None: as deep as msgpack goes
    (some 500 levels), with no check that other readers would take them. `refer` returns the id of a value
    that is a job, to be replaced by its result when the bytes are decoded; without it jobs are refused.

    Raises:
        EncodeError: a part of the value cannot travel; the path to it begins with `root`.
    """
    try:
        session = _idle.pop()
    except IndexError:
        session = _Session()
    session.refer = refer
    try:
        data: bytes | None = session.pack(value)
    except SoftTimeout:
        raise
    except Exception as exc:  # noqa: BLE001  # hooks run users' functions; whatever it was, lowering will name it
        pass_on(exc)
        data = None
    if data is None or (
        (max_depth is not None or BIN8 in data or BIN16 in data or BIN32 in data)
        and _needs_care(value, session, max_depth)
    ):
        data = _encode_carefully(value, max_depth, root, refer)
    session.refer = None
    if session.extended:
        session.reset()
    if len(data) < KEPT_BUFFER:
        _idle.append(session)
    if max_depth is not None and len(data) > FREE_STEPS and type(value) not in ATOMS:
        _check_readable(data, max_depth, root)
    if limit is not None and len(data) > limit:
        cure = "pass a path or a key to the data instead"
        raise EncodeError(f"it takes {len(data):,} bytes, above the limit of {limit:,}: {cure}", root)
    return data


def _needs_care(value: Any, session: _Session, max_depth: int | None) -> bool:
    """Return whether the packed value is too deep, or holds what msgpack took but should not have."""
    if type(value) in ATOMS or (type(value) is list and max_depth != 0 and ATOMS.issuperset(map(type, value))):
        return False
    if max_depth is None and not session.extended and _is_flat_numbers(value):
        return False
    try:
        types = scan_types(value, max_depth)
    except TooDeep:
        return True
    if session.payloads:
        types |= scan_types(session.payloads)
    return not WATCHED.isdisjoint(types)


def _is_flat_numbers(value: Any) -> bool:
    """Return whether a packed value is a list of numbers only, at a fifth of the cost of a scan.

    There is nothing in it but msgpack's own types, so the addition runs no code of users and fails at once
    at anything else.
    """
    if type(value) is not list or not value or type(value[0]) not in (int, float):
        return False
    try:
        sum(value)
    except (TypeError, OverflowError):
        return False
    return True


def _encode_carefully(value: Any, max_depth: int | None, root: str, refer: Refer | None = None) -> bytes:
    lowered = _lower(value, root=root, max_depth=max_depth, refer=refer)
    try:
        return bytes(Packer(strict_types=True, default=_form_of).pack(lowered))
    except (ValueError, OverflowError) as exc:
        raise EncodeError(f"msgpack cannot carry it: {exc}", root) from exc


def _check_readable(data: bytes, max_depth: int, root: str) -> None:
    """Refuse what the reader at the other end would refuse: few large messages are so crowded."""
    try:
        decode(data, max_depth=max_depth, resolve=str)
    except DecodeError as exc:
        raise EncodeError(f"no reader would take it: {exc}", root) from exc


# --- the careful way

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


def _lower(value: Any, *, root: str, max_depth: int | None, refer: Callable[[Any], str | None] | None = None) -> Any:
    """Return a value with everything that msgpack cannot carry as it is replaced by extensions.

    Raises:
        EncodeError: a part cannot travel; its path begins with `root`.
    """
    try:
        return _Lowering(root, max_depth, refer).lower(value, None, 0)
    except RecursionError:
        raise EncodeError("it is nested too deeply", root) from None


class Lowered:
    """A stand-in for a dict's key that was lowered to a list, which as such could not be a key."""

    __slots__ = ("form",)

    def __init__(self, form: list[Any]) -> None:
        self.form = form


class _Lowering:
    """The walk over one value, with the ids of the containers that surround the current part."""

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
            pass_on(exc)
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


def _form_of(key: Lowered) -> list[Any]:
    """Return what stands for a lowered key; the hook to pack what `lower` returned."""
    return key.form

"""Encode: the quick way by msgpack's own packer, the careful way where that would fail or bend a type.

msgpack turns bytearrays into bytes without a word. They end up as its "bin" type, so a message without a
byte that could begin a bin is beyond doubt; any other costs a survey of the types in the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgpack import ExtType, Packer  # type: ignore[import-untyped]

from taskq.codec.decoding import FREE_STEPS, decode
from taskq.codec.extensions import object_packer_of, packer_of, reference
from taskq.codec.lowering import form_of, lower
from taskq.codec.survey import TooDeep, survey
from taskq.codec.wire import MAX_DEPTH
from taskq.errors import DecodeError, EncodeError, SoftTimeout

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
    """Own a packer, and remember what its hook met during one call."""

    __slots__ = ("extended", "pack", "payloads", "refer")

    def __init__(self) -> None:
        #: Whether any value needed an extension.
        self.extended = False
        #: What registered objects were packed to; a survey does not see into the objects themselves.
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
    except Exception:  # noqa: BLE001 - hooks run users' functions; whatever it was, lowering will name it
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
        types = survey(value, max_depth)
    except TooDeep:
        return True
    if session.payloads:
        types |= survey(session.payloads)
    return not WATCHED.isdisjoint(types)


def _is_flat_numbers(value: Any) -> bool:
    """Return whether a packed value is a list of numbers only, at a fifth of the cost of a survey.

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
    lowered = lower(value, root=root, max_depth=max_depth, refer=refer)
    try:
        return bytes(Packer(strict_types=True, default=form_of).pack(lowered))
    except (ValueError, OverflowError) as exc:
        raise EncodeError(f"msgpack cannot carry it: {exc}", root) from exc


def _check_readable(data: bytes, max_depth: int, root: str) -> None:
    """Refuse what the reader at the other end would refuse: few large messages are so crowded."""
    try:
        decode(data, max_depth=max_depth, resolve=str)
    except DecodeError as exc:
        raise EncodeError(f"no reader would take it: {exc}", root) from exc

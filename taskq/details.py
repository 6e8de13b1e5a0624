"""The parts of an exception beyond a failure's plain fields, as bytes: attributes, notes, members, cause.

Each value is encoded by itself, so that one that cannot travel, or not be read, costs no other. What was left behind
stands in it with the reason; where the exception would not be itself without it, `why` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskq.errors import DecodeError, EncodeError, RemoteError
from taskq.locks import pass_on
from taskq.rebuild import Parts, build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["LIMIT", "Details", "pack", "unpack"]

#: Bytes that the details of one failure may take, with all exceptions inside.
LIMIT: Final = 65_536

#: Characters of what stands for an argument that cannot travel, and of a reason.
_SHOWN: Final = 200


class Details:
    """The details that `pack` wrote, as they are read."""

    __slots__ = ("args", "attributes", "cause", "errors", "fields", "lost", "members", "message", "notes", "why")

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.lost: dict[str, str] = dict(data.get("lost", {}))
        self.why: str = data.get("why", "")
        self.args = self._values("args", data.get("args"))
        self.attributes = self._named(data.get("attributes", {}))
        self.fields = self._named(data.get("fields", {}))
        self.notes = [note for note in data.get("notes", ()) if type(note) is str]
        self.message: str = data.get("message", "")
        self.members: Sequence[object] = data.get("members", ())
        self.cause: object = data.get("cause")
        #: Attributes that are exceptions.
        self.errors: Mapping[str, object] = data.get("errors", {})

    def _values(self, name: str, packed: Sequence[bytes] | None) -> list[Any] | None:
        if packed is None:
            return None
        try:
            return [_read(entry) for entry in packed]
        except DecodeError as error:
            self.why = self.why or f"its {name} cannot be read here: {error}"
            return []

    def _named(self, packed: Mapping[str, bytes]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, entry in packed.items():
            try:
                found[name] = _read(entry)
            except DecodeError as error:
                self.lost[name] = f"{error}"[:_SHOWN]
        return found


def pack(
    exc: BaseException,
    parts: Parts,
    *,
    plain: bool,
    texts: tuple[str, str],
    nested: Callable[[BaseException], list[Any]],
) -> bytes:
    """Return the details of an exception.

    `plain`: its arguments stand in the failure. `texts`: its own one, and that of the failure. `nested` describes an
    exception inside it.
    """
    load = _Load()
    data: dict[str, Any] = {}
    if not plain and not parts.members:
        data["args"] = load.arguments(parts.args, texts[1])
    data["fields"] = load.named(parts.fields)
    data["attributes"] = load.named(
        {name: value for name, value in parts.attributes.items() if not isinstance(value, BaseException)}
    )
    data["errors"] = load.errors(
        {name: value for name, value in parts.attributes.items() if isinstance(value, BaseException)}, nested
    )
    data["notes"] = load.texts(parts.notes)
    if parts.members:
        data["message"] = parts.message
        data["members"] = load.members(parts.members, nested)
    if exc.__cause__ is not None and not isinstance(exc.__cause__, RemoteError):  # whose text is in the traceback
        data["cause"] = load.failure("its cause", exc.__cause__, nested)
    data["lost"] = load.lost
    data["why"] = load.why or _difference(type(exc), data, parts, texts)
    return _write({name: value for name, value in data.items() if value})


def unpack(data: bytes) -> Details:
    """Read what `pack` wrote.

    Raises:
        DecodeError: it wrote something else.
    """
    found = _read(data)
    if type(found) is not dict:
        raise DecodeError("an exception's details are no table")
    for name, kind in _KINDS.items():
        if name in found and type(found[name]) is not kind:
            raise DecodeError(f"an exception's {name} cannot be a {type(found[name]).__name__}")
    if not all(type(name) is str for name in found.get("errors", ())):
        raise DecodeError("an exception's errors have no names")
    for name in ("attributes", "fields"):
        if not all(type(key) is str and type(entry) is bytes for key, entry in found.get(name, {}).items()):
            raise DecodeError(f"an exception's {name} are no table of bytes")
    if not all(type(entry) is bytes for entry in found.get("args", ())):
        raise DecodeError("an exception's arguments are no list of bytes")
    return Details(found)


#: What stands under each name.
_KINDS: Final[dict[str, type]] = {
    "args": list,
    "attributes": dict,
    "fields": dict,
    "notes": list,
    "message": str,
    "members": list,
    "cause": list,
    "errors": dict,
    "lost": dict,
    "why": str,
}


class _Load:
    """The encoder of parts, as long as there is room."""

    def __init__(self) -> None:
        self.left = LIMIT
        self.lost: dict[str, str] = {}
        self.why = ""

    def arguments(self, args: Sequence[Any], text: str) -> list[bytes]:
        packed = []
        for number, arg in enumerate(args):
            entry = self._value(f"args[{number}]", arg)
            if entry is None:  # a lone one gives the text: then that stands for it
                entry = _write(text if len(args) == 1 else _shown(arg))
            packed.append(entry)
        return packed

    def named(self, values: Mapping[str, Any]) -> dict[str, bytes]:
        packed = {name: self._value(name, value) for name, value in values.items()}
        return {name: entry for name, entry in packed.items() if entry is not None}

    def texts(self, notes: Sequence[str]) -> list[str]:
        kept = []
        for note in notes:
            if len(note) > self.left:
                self.lost["a note"] = "there is no room for it"
            else:
                kept.append(note)
                self.left -= len(note)
        return kept

    def members(
        self, members: Sequence[BaseException], nested: Callable[[BaseException], list[Any]]
    ) -> list[list[Any]]:
        """Describe the members of a group, which is none without one of them."""
        described = []
        for member in members:
            entry = self.failure("a member", member, nested)
            if not entry:
                self.why = f"with all that is inside, it takes more than {LIMIT:,} bytes"
                break
            described.append(entry)
        return described

    def errors(
        self, errors: Mapping[str, BaseException], nested: Callable[[BaseException], list[Any]]
    ) -> dict[str, list[Any]]:
        described = {name: self.failure(name, error, nested) for name, error in errors.items()}
        return {name: entry for name, entry in described.items() if entry}

    def failure(self, name: str, exc: BaseException, nested: Callable[[BaseException], list[Any]]) -> list[Any]:
        """Describe an exception inside; empty: there is no room for it."""
        described = nested(exc)
        size = len(_write(described))
        if size > self.left:
            self.lost[name] = f"it takes {size:,} bytes"
            return []
        self.left -= size
        return described

    def _value(self, name: str, value: Any) -> bytes | None:
        try:
            packed = _write(value)
        except Exception as error:  # noqa: BLE001  # a registered class may refuse in any way
            pass_on(error)
            self.lost[name] = _clean(error.problem if isinstance(error, EncodeError) else f"{error}")
            return None
        if len(packed) > self.left:
            self.lost[name] = f"it takes {len(packed):,} bytes"
            return None
        self.left -= len(packed) + len(name)
        return packed


def _difference(cls: type[BaseException], data: dict[str, Any], parts: Parts, texts: tuple[str, str]) -> str:
    """Return why an exception without what was lost would not be itself; empty: it is."""
    if not data["lost"] or "members" in data:
        return ""
    args = parts.args if "args" not in data else [_read(entry) for entry in data["args"]]
    carried = data["attributes"].keys() | data["errors"].keys()
    attributes = {name: value for name, value in parts.attributes.items() if name in carried}
    try:
        same = str(build(cls, Parts(args, attributes, parts.fields))) in texts
    except Exception as error:  # noqa: BLE001  # a __str__ that wants what is not there; or a class that cannot be built
        pass_on(error)
        same = False
    return "" if same else f"it would not be the same without {', '.join(data['lost'])}"


def _shown(value: Any) -> str:
    try:
        return _clean(repr(value))
    except BaseException:  # noqa: BLE001  # the user's __repr__ may raise anything, also SystemExit
        return f"<{type(value).__qualname__}>"


def _clean(text: str) -> str:
    return text[:_SHOWN].encode("utf-8", "backslashreplace").decode()


def _write(value: Any) -> bytes:
    from taskq.codec import encode  # noqa: PLC0415  # 10 ms that only exceptions with such parts pay

    return encode(value)


def _read(data: bytes) -> Any:
    from taskq.codec import decode  # noqa: PLC0415  # see _write

    return decode(data)

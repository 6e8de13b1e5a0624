"""An exception's parts, and an exception of the same class made of them, without running any code of that class.

    parts_of(exc)  ──▶  Parts: args, attributes, fields, notes  ──▶  build(cls, parts)

No constructor, `__new__`, `__reduce__` or `__setstate__` of a class is called, no property and no `__getattribute__`:
the sender chooses the class and the parts, and must not choose code that runs. What lies below the class
is always an exception of Python's own; that one's `__new__` makes the object, and its C members get their values by
their descriptors. A class with C members of another origin cannot be built so.
"""

from __future__ import annotations

import builtins
import sys
from types import GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from taskq.locks import pass_on
from taskq.names import main_module, qualified_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Parts", "build", "find_class", "has_own_text", "is_exception", "obstacle", "parts_of"]

# How attributes are read past everything that a class or a metaclass may have put before them.
_BASE: Final[Any] = type.__dict__["__base__"]
_MRO: Final[Any] = type.__dict__["__mro__"]
_NAMES: Final[Any] = type.__dict__["__dict__"]
_SIZE: Final[Any] = type.__dict__["__basicsize__"]
_GLOBALS: Final[Any] = vars(ModuleType)["__dict__"]
_ARGS: Final[Any] = BaseException.__dict__["args"]
_STATE: Final[Any] = BaseException.__dict__["__dict__"]
_new_group: Final[Any] = BaseExceptionGroup.__new__

#: Exceptions that C code defines. `ExceptionGroup` is not among them: Python makes it as a class statement would.
_NATIVE: Final = frozenset(
    found
    for found in vars(builtins).values()
    if isinstance(found, type) and issubclass(found, BaseException) and found is not ExceptionGroup
)

#: Members that are no plain values: what an attribute was looked for in.
_NO_FIELDS: Final = frozenset({"args", "obj"})

#: Bytes of a pointer: what a slot takes in an object.
_POINTER: Final = tuple.__itemsize__


class Parts:
    """The parts of an exception besides its class; `fields` are the members of Python's own classes."""

    __slots__ = ("args", "attributes", "fields", "members", "message", "notes")

    def __init__(
        self,
        args: Sequence[Any] = (),
        attributes: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.args = args
        self.attributes = attributes or {}
        self.fields = fields or {}
        self.notes = notes
        #: Of an exception group.
        self.message = ""
        self.members: Sequence[BaseException] = ()


def parts_of(exc: BaseException) -> Parts:
    """Take an exception apart; `fields` are those that do not follow from its `args`."""
    cls = type(exc)
    state = _STATE.__get__(exc) or {}
    notes = state.get("__notes__")
    attributes = {name: value for name, value in state.items() if type(name) is str and not name.startswith("__")}
    for name, slot in _slots(cls).items():
        try:
            attributes[name] = slot.__get__(exc)
        except AttributeError:
            continue  # it was never set
    args = _full_args(exc)
    parts = Parts(args, attributes, _own_fields(exc, args))
    parts.notes = [note for note in notes if type(note) is str] if type(notes) is list else ()
    if isinstance(exc, BaseExceptionGroup):
        parts.message, parts.members = exc.message, exc.exceptions
        parts.args = (exc.message,)
    return parts


def build(cls: type[BaseException], parts: Parts) -> BaseException:
    """Make an exception of a class from its parts.

    Raises:
        ValueError: it cannot be done for this class, or with these parts; says why.
    """
    why = obstacle(cls)
    if why:
        raise ValueError(why)
    native = _native(cls)
    exc = _empty(cls, native, parts)
    for name, value in parts.fields.items():
        _set(_fields(native).get(name), exc, value)
    slots, state = _slots(cls), {}
    for name, value in parts.attributes.items():
        if name in slots:
            _set(slots[name], exc, value)
        elif not name.startswith("__"):
            state[name] = value
    if parts.notes:
        state["__notes__"] = list(parts.notes)
    _STATE.__get__(exc).update(state)
    return exc


def _empty(cls: type[BaseException], native: type[BaseException], parts: Parts) -> BaseException:
    """Make one that has its arguments, and the members that follow from them."""
    if issubclass(native, BaseExceptionGroup):
        try:
            group: BaseException = _new_group(cls, parts.message, list(parts.members))
        except (TypeError, ValueError) as error:
            raise ValueError(f"its members do not fit: {error}") from None
        _ARGS.__set__(group, (parts.message, list(parts.members)))
        return group
    exc = native.__new__(cls)
    _fill(exc, native, tuple(parts.args))
    return exc


def obstacle(cls: type[BaseException]) -> str:
    """Return why no exception of this class can be built from parts; empty: it can."""
    native = _native(cls)
    for entry in _MRO.__get__(cls):
        if entry is native:
            break
        names = _NAMES.__get__(entry)
        known = sum(isinstance(value, MemberDescriptorType) for value in names.values())
        known += ("__weakref__" in names) + ("__dict__" in names)
        if entry is not object and _SIZE.__get__(entry) > _SIZE.__get__(_BASE.__get__(entry)) + known * _POINTER:
            return f"{qualified_name(cls)} keeps data in C that only its own code can set"
    try:
        if not issubclass(native, BaseExceptionGroup):
            native.__new__(cls)
    except TypeError:
        return f"{qualified_name(cls)} is made in C and only its own code can make one"
    return ""


def is_exception(cls: type[BaseException]) -> bool:
    """Return whether `except Exception` catches it."""
    return Exception in _MRO.__get__(cls)


def has_own_text(cls: type[BaseException]) -> bool:
    """Return whether its text is made by code of another class than Python's own."""
    entry = next(entry for entry in _MRO.__get__(cls) if "__str__" in _NAMES.__get__(entry))
    return entry not in _NATIVE


def find_class(name: str) -> type[BaseException] | None:
    """Find an exception class by its name among the modules imported already, without running any code."""
    parts = name.split(".")
    candidates = [("builtins", parts)] if len(parts) == 1 else []
    candidates += [(".".join(parts[:cut]), parts[cut:]) for cut in range(len(parts) - 1, 0, -1)]
    for module, path in candidates:
        found: Any = sys.modules.get(module) or _main_as(module)
        for part in path:
            found = _names_in(found).get(part)
        if isinstance(found, type) and BaseException in _MRO.__get__(found):
            return found
    return None


def _main_as(module: str) -> object:
    """Return the main program if others, which cannot have it as such, import it by this name."""
    main = sys.modules.get("__main__")
    named = getattr(main, "__file__", None) or ""
    stem = named.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    likely = module.rpartition(".")[2] in {stem, "__main__"}
    return main if likely and module == main_module() else None


def _names_in(place: object) -> Mapping[str, Any]:
    if isinstance(place, ModuleType):
        return _GLOBALS.__get__(place)  # type: ignore[no-any-return]
    return _NAMES.__get__(place) if isinstance(place, type) else {}


def _native(cls: type[BaseException]) -> type[BaseException]:
    """Return the exception of Python's own that lies below a class."""
    while cls not in _NATIVE:
        cls = _BASE.__get__(cls)
    return cls


def _fields(native: type[BaseException]) -> dict[str, Any]:
    """Return the descriptors of the members that a class of Python's own has beyond those of all exceptions."""
    known = _known_fields.get(native)
    if known is None:
        known = _known_fields[native] = {
            name: value
            for entry in reversed(native.__mro__)
            if entry not in (BaseException, BaseExceptionGroup, object)
            for name, value in vars(entry).items()
            if isinstance(value, MemberDescriptorType | GetSetDescriptorType)
            and not name.startswith("__")
            and name not in _NO_FIELDS
        }
    return known


_known_fields: dict[type[BaseException], dict[str, Any]] = {}


def _slots(cls: Any) -> dict[str, Any]:
    """Return the descriptors of the `__slots__` of a class and those above it, down to Python's own."""
    found: dict[str, Any] = {}
    for entry in _MRO.__get__(cls):
        if entry not in _NATIVE and entry not in (ExceptionGroup, object):
            for name, value in _NAMES.__get__(entry).items():
                if isinstance(value, MemberDescriptorType):
                    found.setdefault(name, value)
    return found


def _full_args(exc: BaseException) -> tuple[Any, ...]:
    """Return what the exception was built from; OSError takes file names out of its `args`."""
    args: tuple[Any, ...] = _ARGS.__get__(exc)
    if isinstance(exc, OSError) and len(args) == len(("errno", "strerror")):
        first, second = (_fields(OSError)[name].__get__(exc) for name in ("filename", "filename2"))
        if first is not None:
            return (*args, first) if second is None else (*args, first, None, second)
    return args


def _own_fields(exc: BaseException, args: tuple[Any, ...]) -> dict[str, Any]:
    """Return the members whose values do not follow from the arguments."""
    native = _native(type(exc))
    fields = _fields(native)
    twin = _twin(native, args) if fields else None
    own: dict[str, Any] = {}
    for name, member in fields.items():
        value = _get(member, exc)
        expected = None if twin is None else _get(member, twin)
        if value is not expected and (type(value) is not type(expected) or value != expected):
            own[name] = value
    return own


def _twin(native: type[BaseException], args: tuple[Any, ...]) -> BaseException | None:
    """Return an exception of Python's own with these arguments, whose constructor is C code."""
    try:
        return native(*args)
    except Exception as error:  # noqa: BLE001  # they are those of another constructor
        pass_on(error)
        return None


def _fill(exc: BaseException, native: type[BaseException], args: tuple[Any, ...]) -> None:
    """Give an empty exception its arguments, and the members that follow from them."""
    fields = _fields(native)
    twin = _twin(native, args) if fields else None
    _ARGS.__set__(exc, args if twin is None else _ARGS.__get__(twin))
    for member in fields.values() if twin is not None else ():
        value = _get(member, twin)
        if value is not None:
            _set(member, exc, value)


def _get(member: Any, exc: BaseException | None) -> Any:
    try:
        return member.__get__(exc)
    except (AttributeError, TypeError):  # not set
        return None


def _set(member: Any, exc: BaseException, value: Any) -> None:
    """Set a member; what does not fit it is passed over."""
    try:
        if member is not None:
            member.__set__(exc, value)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return

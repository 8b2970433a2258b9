"""Documents read into typed nouns: one frozen dataclass per file, one reader for all of them.

A class's annotations are its schema. What does not fit is told by file and field, in one line.
"""

import math
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json, write_json

T = TypeVar("T")
Reader = Callable[[Any], Any]  # plain data in, a noun out; raises MismatchError
SHOWN = 40  # characters of a value that an error quotes


class Document(Protocol):
    """A frozen dataclass that is a whole file.

    Attributes:
        SCHEMA: `name/version`, which the file carries too.
        REMEDY: what to do about a file that does not fit.
    """

    SCHEMA: ClassVar[str]
    REMEDY: ClassVar[str]


D = TypeVar("D", bound=Document)


class MismatchError(ValueError):
    """Plain data that is not what the annotation says.

    Attributes:
        reason: what was expected and what is there.
        place: where, for example `candidates[3].genes`; empty for the whole.
    """

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason, self.place = reason, place

    def inside(self, outer: str) -> "MismatchError":
        """Return the same one level further out: `[3]`, or the name of a field."""
        joint = "" if self.place.startswith("[") or not self.place else "."
        return MismatchError(self.reason, f"{outer}{joint}{self.place}")


def read_document(path: Path, kind: type[D]) -> D:
    """Return the noun that the file at `path` holds.

    Raises:
        TrilobitError: missing, not JSON, of another schema, or a field that is not what `kind` says.
    """
    data = read_json(path, kind.SCHEMA)
    del data["schema"]
    try:
        return parse(kind, data)
    except MismatchError as error:
        raise TrilobitError(f"{path}: {error}; {kind.REMEDY}") from None


def write_document(path: Path, document: Document, *, checksum: bool = False) -> None:
    """Write a noun atomically as JSON, with its schema first."""
    write_json(path, {"schema": document.SCHEMA, **to_json(document)}, checksum=checksum)


def to_json(noun: Any) -> dict[str, Any]:
    """Return the fields of a frozen dataclass as plain data; one may say by its own `to_json` how."""
    own = getattr(noun, "to_json", None)
    return own() if own is not None else asdict(noun)


def parse(kind: type[T], data: Any) -> T:
    """Return plain data (as JSON or TOML gives it) as `kind`, a frozen dataclass or an annotation within one.

    Understood are `str`, `int`, finite `float`, `bool`, `None`, `Any`, `Literal`, unions, `tuple`,
    `Sequence`, `Mapping` by strings, dataclasses, and `Annotated[kind, check...]` whose checks raise
    ValueError. Fields that a dataclass does not name are left out, so that older versions read newer files;
    one with `STRICT = True` refuses them.

    >>> parse(tuple[int, ...], [1, 2])
    (1, 2)

    Raises:
        MismatchError: something does not fit; its place is named.
    """
    reader: Reader = _reader(cast(Hashable, kind))
    result: T = reader(data)
    return result


@cache
def _reader(kind: Any) -> Reader:
    """Return what reads one annotation; put together once per annotation."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_reader(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    for origins, make in _GENERIC:
        if origin in origins:
            return make(arguments)
    raise TypeError(f"no document holds a {kind}")


def _shown(value: Any) -> str:
    """Return a value as JSON people know it, cut where it is long."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) > 10**SHOWN:
        return "a number too large"  # printing it may take for ever
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _expected(what: str, value: Any) -> MismatchError:
    return MismatchError(f"expected {what}, got {_shown(value)}")


# -- plain values -------------------------------------------------------------------------------------


def _read_text(value: Any) -> str:
    if type(value) is not str:
        raise _expected("a text", value)
    if "\0" in value or not _encodable(value):
        raise MismatchError(f"expected a text, got one with characters that no text has: {_shown(value)}")
    return value


def _encodable(text: str) -> bool:
    """Return whether a text can be written: JSON lets half a character (a lone surrogate) through."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _read_integer(value: Any) -> int:
    if type(value) is not int:
        raise _expected("an integer", value)
    if not -(2**63) <= value < 2**63:
        raise _expected("an integer of at most 64 bits", value)
    return value


def _read_number(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return float(value)
    raise _expected("a finite number", value)


def _read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _expected("true or false", value)
    return value


def _read_nothing(value: Any) -> None:
    if value is not None:
        raise _expected("null", value)


_PLAIN: Mapping[Any, Reader] = {
    str: _read_text,
    int: _read_integer,
    float: _read_number,
    bool: _read_flag,
    type(None): _read_nothing,
    Any: lambda value: value,
}


# -- what is made of others ---------------------------------------------------------------------------


def _read_list(read: Reader, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _expected("a list", value)
    items: list[Any] = []
    try:
        for item in value:
            items.append(read(item))
    except MismatchError as error:
        raise error.inside(f"[{len(items)}]") from None
    return tuple(items)


def _tuple_reader(arguments: tuple[Any, ...]) -> Reader:
    if arguments[-1] is Ellipsis:
        return _sequence_reader(arguments)
    readers = [_reader(argument) for argument in arguments]

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            raise _expected(f"a list of {len(readers)}", value)
        remaining = iter(readers)
        return _read_list(lambda item: next(remaining)(item), value)

    return read


def _sequence_reader(arguments: tuple[Any, ...]) -> Reader:
    read = _reader(arguments[0])
    return lambda value: _read_list(read, value)


def _mapping_reader(arguments: tuple[Any, ...]) -> Reader:
    read_key, read_value = (_reader(argument) for argument in arguments)

    def read(value: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise _expected("an object", value)
        entries, key = {}, ""
        try:
            for key, item in value.items():
                entries[read_key(key)] = read_value(item)
        except MismatchError as error:
            raise error.inside(key if key.isidentifier() else f'["{_shown(key)[1:-1]}"]') from None
        return entries

    return read


def _literal_reader(arguments: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        for option in arguments:
            if type(value) is type(option) and value == option:
                return option
        raise _expected(f"one of {', '.join(map(str, arguments))}", value)

    return read


def _union_reader(arguments: tuple[Any, ...]) -> Reader:
    """Return the first that fits; where none does, what the last but `None` says."""
    readers = [_reader(argument) for argument in arguments if argument is not type(None)]
    nothing = type(None) in arguments

    def read(value: Any) -> Any:
        if value is None and nothing:
            return None
        for reader in readers[:-1]:
            try:
                return reader(value)
            except MismatchError:
                continue
        return readers[-1](value)

    return read


def _annotated_reader(arguments: tuple[Any, ...]) -> Reader:
    base, *checks = arguments
    read_base = _reader(base)

    def read(value: Any) -> Any:
        result = read_base(value)
        try:
            for check in checks:
                check(result)
        except (ValueError, TrilobitError) as error:
            raise MismatchError(str(error)) from None
        return result

    return read


def _dataclass_reader(kind: Any) -> Reader:
    hints, strict = get_type_hints(kind, include_extras=True), getattr(kind, "STRICT", False)
    parts = [
        (
            field.name,
            _reader(hints[field.name]),
            field.default is MISSING and field.default_factory is MISSING,
        )
        for field in fields(kind)
        if field.init
    ]

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _expected("an object", value)
        if strict and (unknown := sorted(set(value) - {name for name, *_ in parts})):
            field_names = ", ".join(name for name, *_ in parts)
            raise MismatchError(f"unknown field {_shown(unknown[0])}; there are {field_names}")
        arguments, name = {}, ""
        try:
            for name, reader, required in parts:
                if name in value:
                    arguments[name] = reader(value[name])
                elif required:
                    raise MismatchError("missing")
        except MismatchError as error:
            raise error.inside(name) from None
        try:
            return kind(**arguments)
        except (ValueError, TrilobitError) as error:  # what its __post_init__ refuses
            raise MismatchError(str(error)) from None

    return read


_GENERIC: Sequence[tuple[Sequence[Any], Callable[[tuple[Any, ...]], Reader]]] = (
    ((tuple,), _tuple_reader),
    ((list, Sequence), _sequence_reader),
    ((dict, Mapping), _mapping_reader),
    ((Literal,), _literal_reader),
    ((Union, types.UnionType), _union_reader),
    ((Annotated,), _annotated_reader),
)

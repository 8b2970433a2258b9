"""Attributes of layers, by ONNX's names."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.graph.tensor_type import Dim, TensorType


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, known by their SHA-256, by which they are compared; one read from a profile has no bytes."""

    sha256: str
    data: bytes | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def of(data: bytes) -> "Blob":
        """Return the blob of these bytes."""
        return Blob(hashlib.sha256(data).hexdigest(), data)


Value = int | float | str | Blob | tuple[Dim, ...] | tuple[TensorType, ...]
Given = tuple[tuple[str, Value], ...]  # by name, sorted, without those that have their default


class Attributes:
    """Attributes of one layer, defaults included, by type.

    Raises:
        TrilobitError: a value asked for is missing or of another type.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Value | None]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def is_list(self, name: str) -> bool:
        """Return whether it has several values, or a single one as a list."""
        return isinstance(self._values.get(name), tuple)

    def integer(self, name: str) -> int:
        """Return a whole number or a truth value."""
        value = self._values.get(name)
        if not isinstance(value, int):
            raise self._wrong(name, "a whole number")
        return value

    def number(self, name: str) -> float:
        """Return a number."""
        value = self._values.get(name)
        if not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return value

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return value

    def blob(self, name: str) -> Blob:
        """Return bytes."""
        value = self._values.get(name)
        if not isinstance(value, Blob):
            raise self._wrong(name, "bytes")
        return value

    def types(self, name: str) -> tuple[TensorType, ...]:
        """Return types of tensors."""
        return tuple(value for value in self._tuple(name) if isinstance(value, TensorType))

    def dims(self, name: str) -> tuple[Dim, ...]:
        """Return dimensions, which may be symbols."""
        return tuple(value for value in self._tuple(name) if isinstance(value, int | str))

    def integers(self, name: str, count: int | None = None) -> tuple[int, ...]:
        """Return whole numbers; a single one stands for `count` of them."""
        values = self._tuple(name)
        if count is not None and len(values) == 1:
            values *= count
        if not set(map(type, values)) <= {int} or (count is not None and len(values) != count):
            raise self._wrong(name, "whole numbers" if count is None else f"{count} whole numbers")
        return cast("tuple[int, ...]", values)

    def _tuple(self, name: str) -> tuple[Dim, ...] | tuple[TensorType, ...]:
        value = self._values.get(name)
        if not isinstance(value, tuple):
            raise self._wrong(name, "a list")
        return value

    def _wrong(self, name: str, what: str) -> TrilobitError:
        return TrilobitError(f"{name} is {shown(self._values.get(name))}; it must be {what}")

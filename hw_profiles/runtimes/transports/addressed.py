"""What is taken to a board: a file by its hash, with what opens it there and what it reads."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw_profiles.runtimes.runtime import Array, Arrays
from hw_profiles.runtimes.transports.agent_client import sha256_of


@dataclass(frozen=True, eq=False)
class Addressed:
    """A file as an agent is asked for it.

    Attributes:
        content: of the file.
        engine: what opens it there: its `name` and `options`.
        exact_sums: whether it must be opened so that integer sums do not saturate.
        example: what it reads while it is timed; None takes random numbers.
        names: of its inputs and outputs, where the engine has others.
    """

    content: bytes
    engine: Mapping[str, Any]
    exact_sums: bool = False
    example: Arrays | None = None
    names: tuple[str, ...] = ()

    def request(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return how it is asked for, and the files that must be there for that, by their hashes."""
        files = {(sha256 := sha256_of(self.content)): self.content}
        example = None
        if self.example is not None:
            example, packed = named_arrays(self.example)
            files[example] = packed
        asked = {"sha256": sha256, "engine": self.engine, "exact_sums": self.exact_sums}
        return {**asked, "example": example, "names": self.names}, files


def named_arrays(arrays: Arrays) -> tuple[str, bytes]:
    """Return arrays by name as a file, and its hash: names may be such as no file has."""
    file = io.BytesIO()
    numbered: dict[str, Any] = {
        f"array_{i}": np.ascontiguousarray(array) for i, array in enumerate(arrays.values())
    }
    np.savez(file, names=np.array(list(arrays), dtype=np.str_), **numbered)
    content = file.getvalue()
    return sha256_of(content), content


def arrays_in(content: bytes, names: tuple[str, ...]) -> dict[str, Array]:
    """Return the outputs that an agent packed, by their names.

    Raises:
        ValueError: it is no such file, or holds others.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[f"output_{i}"] for i, name in enumerate(names)}
    except Exception as error:  # a file of a stranger: numpy and zipfile raise what they like
        raise ValueError(f"no arrays ({type(error).__name__})") from None

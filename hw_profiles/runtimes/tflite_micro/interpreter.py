"""Runs `.tflite` files by TensorFlow Lite Micro on this machine: by its reference kernels, bit for bit as on
a board that uses them; and says how much of its arena they took.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.runtimes.runtime import Array

ARENAS = 2**22, 2**25, 2**28  # bytes that are there to be allocated: the first of them that does
STANDARD_ERROR = 2
_USED = re.compile(rb"Arena allocation (total|head|tail) (\d+) bytes")


@dataclass(frozen=True)
class MicroSizes:
    """What a network needs on a microcontroller.

    Attributes:
        arena_bytes: of working memory, as the interpreter counts them on this machine of 64 bits; one of 32
            keeps less beside the tensors.
        planned_bytes: of these, tensors and what kernels take for a moment.
        kept_bytes: of these, what the interpreter and its kernels keep.
        flash_bytes: of the file; the code of kernels is not in it.
    """

    arena_bytes: int
    planned_bytes: int
    kept_bytes: int
    flash_bytes: int


@cache
def engine() -> Any:
    """Return the package, which there is for few machines: imported only where something is counted.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    from tflite_micro import runtime

    return runtime


class MicroExecutable:
    """A file in the interpreter.

    Args:
        content: of the file.
        arenas_bytes: that are tried, the smallest first.

    Raises:
        TrilobitError: the interpreter has no such operator, or the arena is too small; says which.
    """

    def __init__(self, content: bytes, arenas_bytes: Sequence[int] = ARENAS) -> None:
        self._size = len(content)
        for arena_bytes in arenas_bytes[:-1]:  # a large one takes longer to clear than a network to run
            with contextlib.suppress(TrilobitError):
                self._interpreter = _opened(content, arena_bytes)
                return
        self._interpreter = _opened(content, arenas_bytes[-1])

    def run(self, *inputs: Array, outputs: int = 1) -> list[Array]:
        """Return the outputs for inputs in the order and the shapes of the file.

        Args:
            outputs: how many the file gives.
        """
        with _said() as lines:
            try:
                for place, array in enumerate(inputs):
                    self._interpreter.set_input(np.ascontiguousarray(array), place)
                self._interpreter.invoke()
                return [np.array(self._interpreter.get_output(place)) for place in range(outputs)]
            except Exception as error:
                raise TrilobitError(f"TensorFlow Lite Micro: {_reason(lines(), error)}") from None

    def sizes(self) -> MicroSizes:
        """Return what it takes."""
        with _said() as lines:
            self._interpreter.print_allocations()
            used = {name.decode(): int(count) for name, count in _USED.findall(lines())}
        if used.keys() != {"total", "head", "tail"}:
            raise TrilobitError("TensorFlow Lite Micro: this version does not say what its arena holds")
        return MicroSizes(used["total"], used["head"], used["tail"], self._size)


def micro_sizes(content: bytes) -> MicroSizes:
    """Return what a `.tflite` file needs on a microcontroller.

    Raises:
        TrilobitError: the interpreter has no such operator; says which.
    """
    return MicroExecutable(content).sizes()


def _opened(content: bytes, arena_bytes: int) -> Any:
    interpreter = engine().Interpreter
    with _said() as lines:
        try:
            return interpreter.from_bytes(content, arena_size=arena_bytes)
        except Exception as error:  # whatever it rejects; why stands in what it said
            raise TrilobitError(f"TensorFlow Lite Micro: {_reason(lines(), error)}") from None


def _reason(said: bytes, error: Exception) -> str:
    """Return the line in which it says why."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else one_line(error)


@contextmanager
def _said() -> Iterator[Callable[[], bytes]]:
    """Keep what it writes to standard error, which is how it speaks; yields a function that returns it."""
    kept = os.dup(STANDARD_ERROR)
    with tempfile.TemporaryFile() as file:

        def lines() -> bytes:
            file.seek(0)
            return file.read()

        try:
            os.dup2(file.fileno(), STANDARD_ERROR)
            yield lines
        finally:
            os.dup2(kept, STANDARD_ERROR)
            os.close(kept)

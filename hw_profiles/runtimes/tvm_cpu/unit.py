"""What one compiled unit consists of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.reference.integer_ops import UnitNumbers
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget

Array = NDArray[Any]
# of a tensor, by its format
DTYPES = {FP32: "float32", "int8": "uint8", "int16": "int16", "bool": "uint8"}


@dataclass(frozen=True)
class Tile:
    """The register tile of a kernel: what its inner loops keep in registers.

    Attributes:
        lanes: channels in one vector.
        columns: neighbouring output positions.
        blocks: vectors of output channels.
        rows: output rows.
    """

    lanes: int
    columns: int = 1
    blocks: int = 1
    rows: int = 1

    @property
    def vectors(self) -> int:
        """Accumulators that it needs."""
        return self.columns * self.blocks * self.rows


@dataclass(frozen=True)
class Argument:
    """One tensor argument of a compiled unit."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Bytes of its elements."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class CompiledUnit:
    """One unit in machine code.

    Attributes:
        symbol: its function is `__tvm_ffi_<symbol>`.
        arguments: what that takes: tensors read, parameters, the tensor written.
        tile: the schedule it was compiled with.
        object_file: where it is.
        seconds: that it took when schedules were tried out; None where none was.
    """

    symbol: str
    arguments: tuple[Argument, ...]
    tile: Tile
    object_file: Path
    seconds: float | None = None


@dataclass(frozen=True)
class Template:
    """How one kind of unit is compiled: its computation and the schedules to choose from.

    The compiled function takes the tensors that the unit reads, its parameters, and the tensor it writes.

    Attributes:
        tiles: schedules worth trying, the best guess first.
        schedule: the unit with one of these, as a TIR function.
        pack: the parameters as that function reads them.
    """

    tiles: Callable[[Layer, TvmTarget], list[Tile]]
    schedule: Callable[[Layer, TvmTarget, Tile], Any]
    pack: Callable[[Layer, UnitNumbers, TvmTarget, Tile], Sequence[Array]]


def blocks_of(channels: int, lanes: int) -> int:
    """Return vectors that hold `channels`."""
    return -(-channels // lanes)


def divisors(number: int, limit: int) -> list[int]:
    """Return divisors of `number` up to `limit`, the largest first.

    >>> divisors(12, 6)
    [6, 4, 3, 2, 1]
    """
    return [d for d in range(min(number, limit), 0, -1) if number % d == 0]


def lanes_of(channels: int, target: TvmTarget) -> int:
    """Return channels in one vector of 32-bit accumulators: fewer where full vectors would be padded by
    half.
    """
    full = target.vector_bytes // 4
    return full // 2 if full == 16 and 0 < channels % full <= full // 2 else full

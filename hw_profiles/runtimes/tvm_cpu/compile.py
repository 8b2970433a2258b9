"""Units to object files, one per schedule, and a library to try them from."""

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.templates import template_of
from hw_profiles.runtimes.tvm_cpu.unit import Argument, Tile

LINK_SECONDS = 120
LONGEST_NAME = 60  # characters of a name that a long key is shortened to


@dataclass(frozen=True)
class Candidate:
    """One schedule of a unit, compiled, or the reason why it could not be.

    Attributes:
        symbol: its function is `__tvm_ffi_<symbol>`.
        arguments: what that takes.
        code: the object file; empty if and only if `error` is set.
    """

    tile: Tile
    symbol: str
    arguments: tuple[Argument, ...] = ()
    code: bytes = b""
    error: str | None = None


def readable_name(layer: Layer) -> str:
    """Return the layer's key with its other characters replaced; a long one shortened, with its hash."""
    key = layer.key()
    readable = "".join(c if c.isalnum() else "_" for c in key.replace(">", "_to_"))
    if layer.kind != layer.op:
        return readable
    return f"{readable[:LONGEST_NAME].rstrip('_')}_{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def unit_symbol(layer: Layer, tile: Tile) -> str:
    """Return the C name of a unit with a schedule."""
    return f"{readable_name(layer)}_l{tile.lanes}c{tile.columns}b{tile.blocks}r{tile.rows}"


def arguments_of(function: Any) -> tuple[Argument, ...]:
    """Return shapes and types of what a TIR function takes, in order."""
    buffers = (parameter.ty for parameter in function.params)
    return tuple(Argument(tuple(map(int, buffer.shape)), str(buffer.dtype)) for buffer in buffers)


def compile_candidate(layer: Layer, target: TvmTarget, tile: Tile) -> Candidate:
    """Compile `layer` with one schedule. What the compiler rejects becomes a candidate with its error."""
    symbol = unit_symbol(layer, tile)
    try:
        function = template_of(layer).schedule(layer, target, tile)
        named = function.with_attr("global_symbol", symbol)
        module = tvm.compile(tvm.IRModule({symbol: named}), target=target.tvm_target()).mod
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "unit.o"
            module.write_to_file(str(path))
            return Candidate(tile, symbol, arguments_of(function), path.read_bytes())
    except Exception as error:
        return Candidate(tile, symbol, error=one_line(error))


def compile_candidates(layer: Layer, target: TvmTarget, limit: int | None = None) -> list[Candidate]:
    """Compile `layer` with the first `limit` of its schedules, or all of them."""
    tiles = template_of(layer).tiles(layer, target)
    return [compile_candidate(layer, target, tile) for tile in tiles[:limit]]


def one_line(error: Exception) -> str:
    """Return the error as one line, as a table holds it."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[-1].strip()}"


def link_shared(target: TvmTarget, inputs: Sequence[str], library: Path) -> None:
    """Compile and link C sources, objects and options into a shared library.

    Raises:
        TrilobitError: there is no C compiler for the target, or it fails.
    """
    command = [target.compiler(), "-O2", "-shared", "-fPIC", *inputs, "-lm", "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LINK_SECONDS, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise TrilobitError(f"{command[0]} could not link for {target.name!r}: {reason}")

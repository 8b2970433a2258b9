"""Units to object files."""

import tempfile
from pathlib import Path
from typing import Any

import tvm

from hw_profiles.backends.tvm_cpu.target import TvmTarget
from hw_profiles.backends.tvm_cpu.unit import Argument


def arguments_of(function: Any) -> tuple[Argument, ...]:
    """Shapes and types of what a TIR function takes, in order."""
    buffers = (parameter.ty for parameter in function.params)
    return tuple(Argument(tuple(map(int, buffer.shape)), str(buffer.dtype)) for buffer in buffers)


def build(functions: dict[str, Any], target: TvmTarget) -> Any:
    """TVM's module with these functions, by symbol, compiled."""
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    return tvm.compile(tvm.IRModule(named), target=target.tvm_target())


def object_code(function: Any, name: str, target: TvmTarget) -> bytes:
    """An object file with the symbol `__tvm_ffi_<name>`, in TVM's calling convention."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unit.o"
        build({name: function}, target).mod.write_to_file(str(path))
        return path.read_bytes()

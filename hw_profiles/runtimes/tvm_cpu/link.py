"""Compiled units to one shared library that runs a network: a C function that calls them in turn.

The library has `__tvm_ffi_main(image, parameters, workspace, output)`: the image (h, w, c) in the workload's
input format, two byte arrays, and the last layer's output. It keeps its tensors' descriptions between
calls, so two threads must not run one library at a time. It needs nothing of TVM's runtime but the two
functions that allocate scratch memory, and the one that reports an error.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tvm_ffi import libinfo

from hw_profiles.graph.formats import WHOLE
from hw_profiles.graph.layer import INPUT
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.windows import map_shape
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_ops import UnitNumbers
from hw_profiles.runtimes.tvm_cpu.compile import link_shared
from hw_profiles.runtimes.tvm_cpu.memory import aligned, plan_memory
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.templates import template_of
from hw_profiles.runtimes.tvm_cpu.unit import Argument, CompiledUnit

IMAGE, PARAMETERS, WORKSPACE, OUTPUT = range(4)  # the arguments of the linked function
DLPACK = {
    **{"uint8": "U8", "int8": "S8", "int16": "S16", "int32": "S32", "int64": "S64"},
    "float32": "F32",
}

_HEAD = """\
/* Written by Trilobit: one network, its units called in turn. */
#include <string.h>
#include <tvm/ffi/c_api.h>

#define UNIT(symbol) int __tvm_ffi_##symbol(void*, const TVMFFIAny*, int32_t, TVMFFIAny*)
#define U8 kDLUInt, 8
#define S8 kDLInt, 8
#define S16 kDLInt, 16
#define S32 kDLInt, 32
#define S64 kDLInt, 64
#define F32 kDLFloat, 32
#define TENSOR(shape, strides, ...) \\
  {0, {kDLCPU, 0}, sizeof(shape) / sizeof(int64_t), {__VA_ARGS__, 1}, (int64_t*)shape, (int64_t*)strides, 0}
"""
_MAIN = """\
enum { TENSORS = sizeof(tensors) / sizeof(tensors[0]) };
static TVMFFIAny operands[TENSORS];
static char* bound[4];

static char* data_of(const TVMFFIAny* argument) {
  if (argument->type_index == kTVMFFIDLTensorPtr) return ((DLTensor*)argument->v_ptr)->data;
  if (argument->type_index == kTVMFFITensor) /* the header's own function for this is C++ only */
    return ((DLTensor*)((char*)argument->v_obj + sizeof(TVMFFIObject)))->data;
  return 0;
}

static void bind(char* const* bases) {
  for (int i = 0; i < TENSORS; ++i) {
    tensors[i].data = bases[places[i].base] + places[i].offset;
    operands[i].type_index = kTVMFFIDLTensorPtr;
    operands[i].v_ptr = &tensors[i];
  }
  memcpy(bound, bases, sizeof(bound));
}

__attribute__((visibility("default")))
int __tvm_ffi_main(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char* bases[4] = {0, 0, 0, 0};
  for (int i = 0; i < 4 && i < count; ++i) bases[i] = data_of(&arguments[i]);
  if (count != 4 || !bases[0] || !bases[1] || !bases[2] || !bases[3]) {
    const char* message = "a network takes 4 tensors: image, parameters, workspace, output";
    TVMFFIErrorSetRaisedFromCStrParts("TypeError", &message, 1);
    return -1;
  }
  if (memcmp(bases, bound, sizeof(bound))) bind(bases);
  int code;
"""


@dataclass(frozen=True)
class _Tensor:
    """One operand of one unit: which argument of the network it lies in, and where."""

    argument: Argument
    base: int
    offset: int


@dataclass(frozen=True)
class NetworkPlan:
    """What has to be allocated for a linked network, and where everything lies.

    Attributes:
        units: one per layer, in order.
        image, output: the network's input, which may be the ids of a text, and output tensor.
        workspace_bytes, parameter_bytes: sizes of the two byte arrays, at least 1.
        operands: for each layer its unit's arguments.
    """

    workload: Workload
    units: tuple[CompiledUnit, ...]
    image: Argument
    output: Argument
    workspace_bytes: int
    parameter_bytes: int
    operands: tuple[tuple[_Tensor, ...], ...]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """What the linked function takes, in order."""
        sizes = (self.parameter_bytes, self.workspace_bytes)
        return (self.image, *(Argument((size,), "uint8") for size in sizes), self.output)


def plan_network(workload: Workload, units: Mapping[str, CompiledUnit]) -> NetworkPlan:
    """Build the layout of a network.

    Args:
        units: compiled units by layer key.
    """
    compiled = tuple(units[layer.key()] for layer in workload.layers)
    offsets, workspace = plan_memory(workload, [unit.arguments[-1].size_bytes for unit in compiled])
    parameters, operands = 0, []
    last = len(compiled) - 1
    for position, (unit, sources) in enumerate(zip(compiled, workload.inputs, strict=True)):
        reads = [
            _Tensor(argument, *((IMAGE, 0) if source == INPUT else (WORKSPACE, offsets[source])))
            for source, argument in zip(sources, unit.arguments, strict=False)
        ]
        for argument in unit.arguments[len(sources) : -1]:
            reads.append(_Tensor(argument, PARAMETERS, parameters))
            parameters += aligned(argument.size_bytes)
        place = (OUTPUT, 0) if position == last else (WORKSPACE, offsets[position])
        operands.append((*reads, _Tensor(unit.arguments[-1], *place)))
    image = Argument(_read_shape(workload.feeds[0].type), compiled[0].arguments[0].dtype)
    sizes = max(workspace, 1), max(parameters, 1)
    return NetworkPlan(workload, compiled, image, compiled[-1].arguments[-1], *sizes, tuple(operands))


def _read_shape(x: TensorType) -> tuple[int, ...]:
    """Return the shape in which an example lies in memory: (h, w, c), or (length,) of ids."""
    if x.format in WHOLE:
        return tuple(int(size) for size in x.shape[1:])
    channels, height, width = map_shape(x)
    return height, width, channels


def pack_parameters(
    plan: NetworkPlan, numbers: Mapping[str, UnitNumbers], target: TvmTarget
) -> NDArray[np.uint8]:
    """Return the linked function's second argument, from the numbers of each layer by its name."""
    blob = np.zeros(plan.parameter_bytes, np.uint8)
    work = plan.workload
    for name, layer, unit, operands in zip(work.names, work.layers, plan.units, plan.operands, strict=True):
        tensors = [each for each in operands if each.base == PARAMETERS]
        packed = template_of(layer).pack(layer, numbers[name], target, unit.tile)
        for tensor, array in zip(tensors, packed, strict=True):
            if (tensor.argument.shape, tensor.argument.dtype) != (array.shape, str(array.dtype)):
                raise ValueError(f"{name}: packed {array.shape} {array.dtype}, wanted {tensor.argument}")
            blob[tensor.offset : tensor.offset + array.nbytes] = array.reshape(-1).view(np.uint8)
    return blob


def link_network(plan: NetworkPlan, target: TvmTarget, library: Path) -> None:
    """Write the network as a shared library for `target`.

    Raises:
        TrilobitError: there is no C compiler for the target, or it fails.
    """
    objects = sorted({str(unit.object_file) for unit in plan.units})
    headers = {libinfo.find_include_path(), libinfo.find_dlpack_include_path()}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.c"
        source.write_text(network_source(plan))
        # ours is the only strong `__tvm_ffi_main`: those of the units are weak
        includes = [f"-I{header}" for header in sorted(headers)]
        link_shared(target, [*includes, str(source), *objects], library)


def network_source(plan: NetworkPlan) -> str:
    """Return the C source of the linked function."""
    operands = [tensor for operands in plan.operands for tensor in operands]
    lines = [_HEAD]
    lines += [f"UNIT({symbol});" for symbol in sorted({unit.symbol for unit in plan.units})]
    shapes = sorted({tensor.argument.shape for tensor in operands})
    for shape in shapes:
        lines.append(f"static const int64_t {_name('shape', shape)}[] = {_braces(shape)};")
        lines.append(f"static const int64_t {_name('strides', shape)}[] = {_braces(_strides(shape))};")
    lines.append("static DLTensor tensors[] = {")
    lines += [f"  {_tensor(tensor.argument)}," for tensor in operands]
    lines.append("};\nstatic const struct { int base; int64_t offset; } places[] = {")
    lines += [f"  {{{tensor.base}, {tensor.offset}}}," for tensor in operands]
    lines.append("};\n" + _MAIN.rstrip())
    first = 0
    for name, unit, tensors in zip(plan.workload.names, plan.units, plan.operands, strict=True):
        call = f"__tvm_ffi_{unit.symbol}(0, operands + {first}, {len(tensors)}, result)"
        lines.append(f"  if ((code = {call})) return code; /* {name} */")
        first += len(tensors)
    return "\n".join([*lines, "  return 0;", "}", ""])


def _tensor(argument: Argument) -> str:
    shape, strides = (_name(what, argument.shape) for what in ("shape", "strides"))
    return f"TENSOR({shape}, {strides}, {DLPACK[argument.dtype]})"


def _name(what: str, shape: Sequence[int]) -> str:
    return f"{what}_{'x'.join(map(str, shape))}"


def _braces(values: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))

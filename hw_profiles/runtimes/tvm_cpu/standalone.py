"""A network and its weights in one shared library that needs nothing else: not TVM, not Python.

`int trilobit_run(const void* image, void* output)` runs it once: the image (h, w, c) and the output are those
of the network's plan, or have their channels first where that is asked for. It gives 0, or the code of the
unit that failed. The tensors between the units are inside the library, so two threads must not run it at a
time; a second copy of the file serves a second one. `trilobit_signature`, where there is one, says in JSON
what it reads and gives.
"""

import tempfile
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tvm_ffi import libinfo

from hw_profiles.graph.formats import WHOLE
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.windows import map_shape
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.tvm_cpu.compile import link_shared
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan, network_source
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.templates import template_of
from hw_profiles.runtimes.tvm_cpu.unit import Tile

# what units take from TVM's runtime, and the one function that people call
_RUN = """\
#include <stdint.h>
#include <stdlib.h>

__attribute__((visibility("hidden")))
void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  (void)kind, (void)parts, (void)count; /* the code that is given back says that it failed */
}

static void* scratch(int device, int id, uint64_t size, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  void* found = 0;
  return posix_memalign(&found, 64, size ? size : 1) ? 0 : found;
}

static int release(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}

extern void* __TVMBackendAllocWorkspace __attribute__((weak));
extern void* __TVMBackendFreeWorkspace __attribute__((weak));
extern char trilobit_parameters[] __attribute__((visibility("hidden")));
static char workspace[WORKSPACE_BYTES] __attribute__((aligned(64)));
/* the units read and write whole vectors, and have channels last */
static char image_held[IMAGE_BYTES] __attribute__((aligned(64)));
static char output_held[OUTPUT_BYTES] __attribute__((aligned(64)));
static int is_aligned(const void* data) { return (uintptr_t)data % 64 == 0; }

static void moved(const float* restrict from, float* restrict to, long rows, long columns) {
  for (long r = 0; r < rows; ++r)
    for (long c = 0; c < columns; ++c) to[r * columns + c] = from[c * rows + r];
}

__attribute__((visibility("default")))
int trilobit_run(const void* image, void* output) {
  if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = (void*)scratch;
  if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = (void*)release;
  int held_in = IMAGE_FIRST || !is_aligned(image), held_out = OUTPUT_FIRST || !is_aligned(output);
  if (IMAGE_FIRST)
    moved(image, (float*)image_held, IMAGE_PIXELS, IMAGE_CHANNELS);
  else if (held_in)
    memcpy(image_held, image, IMAGE_BYTES);
  void* data[4] = {
    held_in ? image_held : (void*)image, trilobit_parameters, workspace, held_out ? output_held : output};
  DLTensor held[4];
  TVMFFIAny arguments[4], result;
  memset(held, 0, sizeof(held));
  memset(arguments, 0, sizeof(arguments));
  for (int i = 0; i < 4; ++i) {
    held[i].data = data[i];
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &held[i];
  }
  int code = __tvm_ffi_main(0, arguments, 4, &result);
  if (OUTPUT_FIRST)
    moved((const float*)output_held, output, OUTPUT_CHANNELS, OUTPUT_PIXELS);
  else if (held_out)
    memcpy(output, output_held, OUTPUT_BYTES);
  return code;
}
"""
_PARAMETERS = """\
.section .rodata
.balign 64
.globl trilobit_parameters
.hidden trilobit_parameters
trilobit_parameters:
.incbin "{path}"
"""
_SIGNATURE = """\
.globl trilobit_signature
.type trilobit_signature, %object
trilobit_signature:
.incbin "{path}"
.byte 0
.size trilobit_signature, . - trilobit_signature
"""
_STACK = '.section .note.GNU-stack,"",%progbits\n'


MAPS = (2, 4)  # dimensions of maps, and of features, which are a map of one pixel


class ChannelsFirst(NamedTuple):
    """Which ends of a library have their channels first: it moves them on the way in and out."""

    image: bool = False
    output: bool = False


def link_standalone(
    plan: NetworkPlan,
    parameters: NDArray[np.uint8],
    target: TvmTarget,
    library: Path,
    first: ChannelsFirst = ChannelsFirst(),  # noqa: B008  it is frozen
    signature: str = "",
) -> None:
    """Write the network with its parameters as a shared library for `target`.

    Args:
        parameters: what `link.pack_parameters` gave.
        first: ends that have their channels first.
        signature: what the library says of itself; empty for nothing.

    Raises:
        TrilobitError: there is no C compiler for the target, or it fails.
    """
    objects = sorted({str(unit.object_file) for unit in plan.units})
    includes = [
        f"-I{path}" for path in sorted({libinfo.find_include_path(), libinfo.find_dlpack_include_path()})
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters.tofile(folder / "parameters.bin")
        data = _PARAMETERS.format(path=folder / "parameters.bin")
        if signature:
            (folder / "signature.json").write_text(signature)
            data += _SIGNATURE.format(path=folder / "signature.json")
        (folder / "parameters.s").write_text(data + _STACK)
        (folder / "network.c").write_text(f"{network_source(plan)}\n{_RUN}")
        sources = [str(folder / "network.c"), str(folder / "parameters.s")]
        options = [f"-DWORKSPACE_BYTES={plan.workspace_bytes}", *_ends(plan, first), "-s", *includes]
        link_shared(target, [*options, *sources, *objects], library)


def _ends(plan: NetworkPlan, first: ChannelsFirst) -> list[str]:
    """Return what is known of both ends, as options of the compiler."""
    options = []
    work = plan.workload
    types = work.feeds[0].type, work.layers[-1].outputs[0]  # some kernels take maps as rows of numbers
    for name, argument, x, moved in zip(first._fields, (plan.image, plan.output), types, first, strict=True):
        channels, pixels = _ends_of(x)
        facts = {
            "FIRST": int(moved),
            "BYTES": argument.size_bytes,
            "PIXELS": pixels,
            "CHANNELS": channels,
        }
        options += [f"-D{name.upper()}_{fact}={value}" for fact, value in facts.items()]
    return options


def _ends_of(x: TensorType) -> tuple[int, int]:
    """Return (channels, pixels) of maps, or (features, rows) of anything else."""
    if len(x.shape) in MAPS:
        channels, height, width = map_shape(x)
        return channels, height * width
    *rows, features = (int(size) for size in x.shape[1:])
    return features, prod(rows)


def float_operations(plan: NetworkPlan, target: TvmTarget) -> list[str]:
    """Return the names of the layers within a network whose compiled function has a floating-point value in
    it anywhere: none in an integer-only network.

    The layer that gives the answer gives it in real numbers: what it may have in floating point is one
    product with its scale.
    """
    work = plan.workload
    return [
        work.names[position]
        for position in _within(work)
        if _computes_in_reals(work.layers[position], target, plan.units[position].tile)
    ]


@lru_cache(maxsize=1024)  # scheduling takes tens of milliseconds, and a tune links hundreds of networks
def _computes_in_reals(layer: Layer, target: TvmTarget, tile: Tile) -> bool:
    function = template_of(layer).schedule(layer, target, tile)
    return "float" in function.script()  # every buffer, cast and constant is written with its type


def is_integer_only(work: Workload) -> bool:
    """Return whether everything between the quantized image, or ids, and the layer that gives the answer is
    to be computed in integers.
    """
    inner = [work.layers[position] for position in _within(work)]
    first = work.layers[0]
    return (first.kind == "quantize" or first.in_format in WHOLE) and all(
        layer.in_format != "fp32" and layer.out_format != "fp32" for layer in inner
    )


def _within(work: Workload) -> range:
    """Return the layers between the image's `quantize`, or ids, and the layer that gives the answer, behind
    which only a softmax may stand.
    """
    answer = max(i for i, layer in enumerate(work.layers) if layer.op != "Softmax" or i == 0)
    return range(int(work.layers[0].kind == "quantize"), answer)

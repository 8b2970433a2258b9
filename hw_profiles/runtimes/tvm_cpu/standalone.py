"""A network and its weights in one shared library that needs nothing else: not TVM, not Python.

`int trilobit_run(const void* image, void* output)` runs it once: the image (h, w, c) and the output are those
of the network's plan. It gives 0, or the code of the unit that failed. The tensors between the units are
inside the library, so two threads must not run it at a time; a second copy of the file serves a second one.
"""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tvm_ffi import libinfo

from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.tvm_cpu.compile import link_shared
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan, network_source
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.templates import template_of

# what units take from TVM's runtime, and the one function that people call
_RUN = """\
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

__attribute__((visibility("default")))
int trilobit_run(const void* image, void* output) {
  if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = (void*)scratch;
  if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = (void*)release;
  void* data[4] = {(void*)image, trilobit_parameters, workspace, output};
  DLTensor held[4];
  TVMFFIAny arguments[4], result;
  memset(held, 0, sizeof(held));
  memset(arguments, 0, sizeof(arguments));
  for (int i = 0; i < 4; ++i) {
    held[i].data = data[i];
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &held[i];
  }
  return __tvm_ffi_main(0, arguments, 4, &result);
}
"""
_PARAMETERS = """\
.section .rodata
.balign 64
.globl trilobit_parameters
.hidden trilobit_parameters
trilobit_parameters:
.incbin "{path}"
.section .note.GNU-stack,"",%progbits
"""


def link_standalone(
    plan: NetworkPlan, parameters: NDArray[np.uint8], target: TvmTarget, library: Path
) -> None:
    """Write the network with its parameters as a shared library for `target`.

    Args:
        parameters: what `link.pack_parameters` gave.

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
        (folder / "parameters.s").write_text(_PARAMETERS.format(path=folder / "parameters.bin"))
        (folder / "network.c").write_text(f"{network_source(plan)}\n{_RUN}")
        sources = [str(folder / "network.c"), str(folder / "parameters.s")]
        options = [f"-DWORKSPACE_BYTES={plan.workspace_bytes}", "-s", *includes]
        link_shared(target, [*options, *sources, *objects], library)


def float_operations(plan: NetworkPlan, target: TvmTarget) -> list[str]:
    """Return the names of the layers, other than the image's `quantize` and the last one, whose compiled
    function has a floating-point value in it anywhere: none in an integer-only network.

    The last layer gives real logits: what it may have in floating point is one product with its scale.
    """
    work = plan.workload
    found = []
    for position, (name, layer, unit) in enumerate(zip(work.names, work.layers, plan.units, strict=True)):
        inside = layer.kind != "quantize" or position != 0
        if inside and position != len(work.layers) - 1:
            function = template_of(layer).schedule(layer, target, unit.tile)
            if "float" in function.script():  # every buffer, cast and constant is written with its type
                found.append(name)
    return found


def is_integer_only(work: Workload) -> bool:
    """Return whether everything between the image's `quantize` and the last layer is to be computed in
    integers.
    """
    inner = work.layers[1:-1] if work.layers[0].kind == "quantize" else work.layers[:-1]
    return work.layers[0].kind == "quantize" and all(
        layer.in_format != "fp32" and layer.out_format != "fp32" for layer in inner
    )

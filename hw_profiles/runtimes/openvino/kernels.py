"""Which kernels OpenVINO runs for a file, and what each takes, as the graph that it executes says.

A kernel's kind is the type of its layer and the numbers that it reads, such as `Convolution_I8`. Which
implementation was chosen (`brgconv_avx512_1x1_I8`) it says too, but that is another on every processor.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.runtimes.runtime import KernelTime

SUFFIX = "/WithoutBiases"  # of a node whose bias was split off, and fused again
_CODES = frozenset(("u8", "i8"))
_CONVERSIONS = frozenset(("QuantizeLinear", "DequantizeLinear", "Cast"))
# layers that are made of any number of operations on single numbers; codes are read and given as they are
_FUSED = frozenset(("Subgraph", "Eltwise"))
# what brings numbers in and takes them out
_ENDS = frozenset(("Input", "Output", "Const"))
# layers that compute on codes where they read such; others (Reorder, Convert) change what is stored
_COMPUTING = (
    *("Convolution", "Deconvolution", "FullyConnected", "MatMul"),
    *("Pooling", "Reduce", "Concatenation", "Interpolate", *sorted(_FUSED)),
)
INTEGER_KERNELS = frozenset(f"{layer}_I8" for layer in _COMPUTING)


@dataclass(frozen=True)
class Kernel:
    """A node of the executed graph that does something at each inference.

    Attributes:
        name: of it, one of a kind.
        kind: see the module.
        nodes: of the file that became it.
        reads: names of the kernels that it reads from.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Executed:
    """A node of the executed graph as it is.

    Attributes:
        name: of it.
        said: what the engine says of it.
        reads: names of the nodes that it reads from.
    """

    name: str
    said: Mapping[str, str]
    reads: tuple[str, ...]


def executed_graph(compiled: Any) -> tuple[Executed, ...]:
    """Return the graph that a compiled model executes, in order."""
    return tuple(
        Executed(
            node.get_friendly_name(),
            {key: str(value.astype(str)) for key, value in node.get_rt_info().items()},
            tuple(each.get_source_output().get_node().get_friendly_name() for each in node.inputs()),
        )
        for node in compiled.get_runtime_model().get_ordered_ops()
    )


def kernels_of(graph: Sequence[Executed], ops: Mapping[str, str]) -> tuple[Kernel, ...]:
    """Return the kernels of an executed graph, in the order in which they run.

    Args:
        ops: operation of each node of its file, by name.
    """
    constant: set[str] = set()
    given: dict[str, str] = {}  # numbers that each node gives
    kernels = []
    for node in graph:
        said, name, reads = node.said, node.name, node.reads
        layer = said["layerType"]
        given[name] = said["outputPrecisions"].partition(",")[0]
        if layer == "Const" or (reads and constant.issuperset(reads)):
            constant.add(name)  # computed once, when the file is compiled
        elif layer not in _ENDS:
            nodes = [part.removesuffix(SUFFIX) for part in said["originalLayersNames"].split(",") if part]
            computed = tuple(source for source in reads if source not in constant)
            # of stored codes it tells their type instead, though it computes in real numbers
            numbers = given.get(computed[0] if computed else "", said["runtimePrecision"])
            on_codes = _on_codes(layer, numbers, given[name], [ops.get(node, "") for node in nodes])
            kind = f"{layer}_{'I8' if on_codes else numbers}"
            kernels.append(Kernel(name, kind, tuple(dict.fromkeys(nodes)), computed))
    return tuple(kernels)


def _on_codes(layer: str, numbers: str, gives: str, ops: Sequence[str]) -> bool:
    """Return whether a layer computes on codes. What only makes codes of numbers, or numbers of codes, does
    not; what makes codes, computes and makes numbers does: such are files of one unit.
    """
    if layer not in _FUSED:
        return numbers in _CODES
    computes = any(op and op not in _CONVERSIONS for op in ops)
    return computes and (bool({numbers, gives} & _CODES) or "QuantizeLinear" in ops)


def average_us(request: Any) -> dict[str, float]:
    """Return the average time of each kernel over all runs of its compiled model, by name."""
    return {info.node_name: 1e6 * info.real_time.total_seconds() for info in request.get_profiling_info()}


def timed_kernels(
    kernels: Sequence[Kernel], outputs: Mapping[str, Sequence[str]], seconds: Mapping[str, float]
) -> Iterator[KernelTime]:
    """Yield kernels with what they take, by the names of nodes and tensors of their file.

    Args:
        outputs: tensors by the node of the file that gives them.
        seconds: by the name of the kernel.
    """
    gives = {kernel.name: tuple(dict.fromkeys((kernel.name, *_given(kernel, outputs)))) for kernel in kernels}
    for kernel in kernels:
        # a kernel is called after the first node that it computes: what follows was fused into it
        name = next((node for node in kernel.nodes if node in outputs), kernel.name)
        reads = [tensor for source in kernel.reads for tensor in gives.get(source, (source,))]
        yield KernelTime(name, kernel.kind, seconds.get(kernel.name, 0.0), tuple(reads), gives[kernel.name])


def _given(kernel: Kernel, outputs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the tensors of the file that a kernel gives, what is only inside it included."""
    return (tensor for node in kernel.nodes for tensor in outputs.get(node, ()))

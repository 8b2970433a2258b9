"""Which kernels run a file, from its nodes and the graph that OpenVINO says it executes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from hw_profiles.runtimes.openvino.kernels import Executed, Kernel, kernels_of, timed_kernels
from hw_profiles.runtimes.runtime import KernelTime


@dataclass(frozen=True, eq=False)
class FileKernels:
    """The kernels of a file.

    Attributes:
        graph: of the file.
        executed: the graph that is executed.
    """

    graph: onnx.GraphProto
    executed: Sequence[Executed]

    @cached_property
    def _nodes(self) -> Mapping[str, onnx.NodeProto]:
        return {_called(node): node for node in self.graph.node}

    @cached_property
    def _kernels(self) -> tuple[Kernel, ...]:
        return kernels_of(self.executed, {name: node.op_type for name, node in self._nodes.items()})

    def counts(self) -> Counter[str]:
        """Return how many kernels of each kind run."""
        return Counter(kernel.kind for kernel in self._kernels)

    def named(self) -> dict[str, str]:
        """Return the kind of kernel by the name of each node that it computes."""
        return {node: kernel.kind for kernel in self._kernels for node in kernel.nodes}

    def fused_sums(self) -> frozenset[str]:
        """Return the convolutions that are computed with the sum behind them: what they give is not rounded
        before it is added, whatever the file says.
        """
        computed = (
            [self._nodes[node] for node in kernel.nodes if node in self._nodes] for kernel in self._kernels
        )
        fused = (nodes for nodes in computed if any(node.op_type == "Add" for node in nodes))
        return frozenset(_called(node) for nodes in fused for node in nodes if node.op_type == "Conv")

    def times(self, seconds: Mapping[str, float]) -> tuple[KernelTime, ...]:
        """Return the kernels with what they take, by the names of nodes and tensors of the file."""
        outputs = {name: tuple(filter(None, node.output)) for name, node in self._nodes.items()}
        return tuple(timed_kernels(self._kernels, outputs, seconds))


def _called(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


def seconds_of(
    first_us: Mapping[str, float], whole_us: Mapping[str, float], settling: int, runs: int
) -> dict[str, float]:
    """Return what each kernel takes: the engine counts the average over all runs since it started, and those
    that allocate are taken off.

    Args:
        first_us: averages of the first `settling` runs.
        whole_us: averages of these and `runs` more.
    """
    return {
        name: max(0.0, 1e-6 * (average * (settling + runs) - first_us.get(name, 0.0) * settling) / runs)
        for name, average in whole_us.items()
    }

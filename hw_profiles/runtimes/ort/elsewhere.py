"""What of ONNX Runtime stays here when its sessions are on boards: files are written here, and what an agent
sends back of them is read here.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import onnx

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.onnx_file import needs_exact_sums
from hw_profiles.runtimes.ort.integer_sums import largest_inputs, saturating_kinds, saturating_model
from hw_profiles.runtimes.ort.kernel_times import SETTLING_RUNS, times_of
from hw_profiles.runtimes.ort.options import OrtOptions
from hw_profiles.runtimes.ort.runtime import CPU, OrtRuntime, kernel_counts, kernel_names
from hw_profiles.runtimes.runtime import Artifact, KernelTime
from hw_profiles.runtimes.transports.board_runtime import EngineHere, RunsThere


@dataclass(frozen=True)
class OrtHere(EngineHere):
    """The part of this machine.

    Attributes:
        options: of the runtime.
    """

    options: OrtOptions
    package = "onnxruntime"
    oldest = (1, 20)  # the first that opens opset 21 with all operators that are written

    @cached_property
    def local(self) -> OrtRuntime:
        """What knows the formats, whether the provider is installed here or not."""
        return OrtRuntime(self.options, here=False)

    @property
    def engine(self) -> Mapping[str, Any]:
        """What an agent opens sessions with."""
        options = {
            "threads": self.options.threads,
            "batch": self.options.batch,
            "provider": self.local.provider,
        }
        return {"name": self.package, "options": options}

    def integer_sums(self, run: RunsThere) -> Literal["exact", "saturating", "unknown"]:
        """Return what its kernels there do with sums that leave 16 bits."""
        outputs = run(saturating_model(), largest_inputs())
        return "saturating" if saturating_kinds(outputs) else "exact"

    def wants_exact_sums(self, artifact: Artifact) -> bool:
        """Return whether its weights are that wide."""
        return artifact.exact_sums and needs_exact_sums(artifact.content)

    def kernels(self, graph: bytes, content: bytes) -> Counter[str]:
        """Return the operators of the graph that it runs."""
        return kernel_counts(_nodes(graph))

    def named_kernels(self, graph: bytes, content: bytes) -> dict[str, str]:
        """Return the operator by the name of the node that it was made of."""
        return kernel_names(_nodes(graph))

    def profiled_runs(self, runs: int) -> int:
        """Return how many runs make a record of so many that count; none where the record says nothing."""
        return SETTLING_RUNS + runs if self.local.provider == CPU else 0

    def kernel_times(self, graph: bytes, trace: bytes, content: bytes, runs: int) -> tuple[KernelTime, ...]:
        """Return the kernels with what each takes, from its graph and its own profiler's record.

        Raises:
            TrilobitError: that is no such record.
        """
        try:
            return times_of(_nodes(graph), json.loads(trace), runs)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TrilobitError("the board's profile of kernels cannot be read") from None


def _nodes(answer: bytes) -> list[onnx.NodeProto]:
    """Return the nodes of a graph that a board sent.

    Raises:
        TrilobitError: it is none.
    """
    try:
        return list(onnx.load_from_string(answer).graph.node)
    except Exception:  # a file of a stranger
        raise TrilobitError("the board's optimised graph cannot be read") from None

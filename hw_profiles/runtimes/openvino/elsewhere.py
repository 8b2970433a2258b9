"""What of OpenVINO stays here when its models are compiled on boards."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import onnx

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.openvino.file_kernels import FileKernels, seconds_of
from hw_profiles.runtimes.openvino.kernels import Executed
from hw_profiles.runtimes.openvino.options import CPU, OpenVinoOptions
from hw_profiles.runtimes.openvino.runtime import SETTLING_RUNS, OpenVinoRuntime
from hw_profiles.runtimes.ort.integer_sums import largest_inputs, saturating_kinds, saturating_model
from hw_profiles.runtimes.runtime import KernelTime
from hw_profiles.runtimes.transports.asking import require
from hw_profiles.runtimes.transports.board_runtime import (
    BoardExecutable,
    BoardRuntime,
    EngineHere,
    RunsThere,
)
from hw_profiles.runtimes.transports.boards import Boards


class OpenVinoOnBoard(BoardExecutable):
    """A model that is compiled on a board."""

    def fused_sums(self) -> frozenset[str]:
        """Return the convolutions that are computed with the sum behind them, without a rounding between."""
        return _kernels(self.graph, self.addressed.content).fused_sums()


@dataclass(frozen=True)
class OpenVinoHere(EngineHere):
    """The part of this machine.

    Attributes:
        options: of the runtime.
        boards: that say what their processors compute in; None where none was named.
    """

    options: OpenVinoOptions
    boards: Boards | None = None
    package = "openvino"
    oldest = (2025, 0)  # the first that opens opset 21 with all operators that are written

    @cached_property
    def local(self) -> OpenVinoRuntime:
        """What knows the formats: by what the boards compute in."""
        return OpenVinoRuntime(self.options, elsewhere=self._capabilities)

    def _capabilities(self) -> frozenset[str]:
        assert self.boards is not None
        return frozenset(self.boards.run(lambda client: require(client, self)).capabilities)

    @property
    def engine(self) -> Mapping[str, Any]:
        """What an agent compiles with."""
        own = {field: getattr(self.options, field) for field in asdict(OpenVinoOptions())}
        return {"name": self.package, "options": own}

    def on(self, boards: Boards) -> BoardRuntime:
        """Return the runtime on boards."""
        return BoardRuntime(replace(self, boards=boards), boards)

    def opened(self, executable: BoardExecutable) -> BoardExecutable:
        """Return a model, which also tells what it fuses."""
        return OpenVinoOnBoard(
            executable.runtime, executable.addressed, executable.inputs, executable.outputs
        )

    def integer_sums(self, run: RunsThere) -> Literal["exact", "saturating", "unknown"]:
        """Return what a processor's kernels do with sums that leave 16 bits."""
        if self.options.provider != CPU:
            return "unknown"
        return "saturating" if saturating_kinds(run(saturating_model(), largest_inputs())) else "exact"

    def names(self, content: bytes) -> tuple[str, ...]:
        """Return what the file calls its inputs and outputs."""
        try:
            graph = onnx.load_from_string(content).graph
        except Exception:  # whoever opens it says what is wrong
            return ()
        return tuple(value.name for value in (*graph.input, *graph.output))

    def kernels(self, graph: bytes, content: bytes) -> Counter[str]:
        """Return how many kernels of each kind run."""
        return _kernels(graph, content).counts()

    def named_kernels(self, graph: bytes, content: bytes) -> dict[str, str]:
        """Return the kind of kernel by the name of each node that it computes."""
        return _kernels(graph, content).named()

    def profiled_runs(self, runs: int) -> int:
        """Return how many runs make so many that count."""
        return SETTLING_RUNS + runs

    def kernel_times(self, graph: bytes, trace: bytes, content: bytes, runs: int) -> tuple[KernelTime, ...]:
        """Return the kernels with the average of what each takes.

        Raises:
            TrilobitError: the board's record is none.
        """
        first, whole = _parsed(tuple[Mapping[str, float], Mapping[str, float]], trace)
        return _kernels(graph, content).times(seconds_of(first, whole, SETTLING_RUNS, runs))


def _kernels(graph: bytes, content: bytes) -> FileKernels:
    executed = _parsed(tuple[Executed, ...], graph)
    return FileKernels(onnx.load_from_string(content).graph, executed)


def _parsed(kind: Any, answer: bytes) -> Sequence[Any]:
    """Return what a board sent as JSON.

    Raises:
        TrilobitError: it is something else.
    """
    try:
        parsed: Sequence[Any] = parse(kind, json.loads(answer))
        return parsed
    except (ValueError, MismatchError, RecursionError):
        raise TrilobitError("what the board says of its kernels cannot be read") from None

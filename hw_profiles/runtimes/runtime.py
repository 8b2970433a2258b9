"""What a runtime offers: it compiles an artifact to an executable, which runs, is timed, names its kernels.

How a layer's cost inside a network is found from such times is `hw_profiles.measure.in_context`'s business;
where executables run is a transport's (`hw_profiles.runtimes.device`).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.interleave import Timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.info import DeviceInfo

Array = NDArray[Any]
Arrays = Mapping[str, Array]  # by the name of an input or an output
ArtifactKind = Literal["onnx", "library"]
OPEN_BATCH = 100  # items at a time through an executable that takes any number


class LostError(TrilobitError):
    """A machine that runs artifacts does not answer, whatever it thinks of them."""


class RejectedError(TrilobitError):
    """What runs on another machine does not run an artifact, in its own words; the machine is there."""


@dataclass(frozen=True)
class Job:
    """One workload to measure, and how to get it as ONNX if the runtime wants that; where nothing is executed
    it is never called.

    Attributes:
        context: jobs of one context are subtracted from each other: their samples are of the same passes.
            None stands by itself.
        exact_sums: see `Artifact`.
    """

    workload: Workload
    onnx: Callable[[], bytes]
    context: Hashable | None = None
    exact_sums: bool = False


@dataclass(frozen=True, eq=False)
class Artifact:
    """What is carried to a device and compiled there.

    Attributes:
        content: of the file.
        kind: how that is written.
        exact_sums: whether its results count, so that integer sums must not saturate where its weights are
            too wide for this processor's kernels; without, it runs as fast as a network made for those would.
        example: what it reads while it is timed, by input: it binds what the file leaves open; None takes
            random numbers.
    """

    content: bytes
    kind: ArtifactKind = "onnx"
    exact_sums: bool = False
    example: Arrays | None = None


@dataclass(frozen=True)
class TensorInfo:
    """An input or an output.

    Attributes:
        name: of it.
        shape: None where any size is allowed.
        dtype: numpy's name of it, such as `float32`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a network, timed inside it.

    Attributes:
        name: of its node in the graph that really runs: of the file's node where it was taken over.
        op: what it computes, by the runtime's name.
        seconds: of one run.
        reads, gives: names of tensors.
    """

    name: str
    op: str
    seconds: float
    reads: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """How a runtime wants a quantized network written down.

    Attributes:
        notation: `qdq`, operations on real numbers between a QuantizeLinear and a DequantizeLinear each,
            which the runtime fuses; or `integer`, layers that compute on integers as they are.
        activations: element type of 8-bit activations for which it has fast kernels.
    """

    notation: Literal["qdq", "integer"] = "qdq"
    activations: Literal["uint8", "int8"] = "uint8"

    def __str__(self) -> str:
        return f"{self.notation} with {self.activations} activations"


class Executable(Protocol):
    """A compiled artifact, ready to run."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What it reads."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it gives."""
        ...

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return its outputs by name, for one batch of inputs by name."""
        ...

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return the executable as something to be timed, on inputs in memory of its own.

        Args:
            batch: items of a call where any number is allowed; None takes what the runtime was opened for.
            example: what it reads; None takes random numbers.
        """
        ...

    def kernels(self) -> Mapping[str, int]:
        """Return how many kernels of each kind really run, by the runtime's names."""
        ...


@runtime_checkable
class NamesKernels(Protocol):
    """An executable that knows which kernel runs a node of its file."""

    def named_kernels(self) -> Mapping[str, str]:
        """Return the kind of kernel by the name of the node that it runs, where that is still known."""
        ...


@runtime_checkable
class FusesSums(Protocol):
    """An executable that leaves out a rounding where a convolution is one kernel with the sum behind it."""

    def fused_sums(self) -> frozenset[str]:
        """Return the names of these convolutions in its file."""
        ...


class Runtime(Protocol):
    """One engine with its options, on the machine where its executables run."""

    @property
    def artifact(self) -> ArtifactKind:
        """What it compiles."""
        ...

    @property
    def clock(self) -> Clock:
        """By which its executables are timed: CPU time of the calling thread where that does all the work."""
        ...

    @property
    def dialect(self) -> Dialect:
        """How it wants quantized networks."""
        ...

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """Pairs (weights, activations) of number formats that it has kernels for."""
        ...

    @property
    def integer_kernels(self) -> frozenset[str]:
        """Which of its kernels compute on integers, by its names."""
        ...

    def describe(self) -> DeviceInfo:
        """Return the engine on this machine; equal on every call."""
        ...

    def supports(self, layer: Layer) -> bool:
        """Return whether it can run this layer in the formats that it asks for."""
        ...

    def why_not(self, layer: Layer) -> str:
        """Return why it cannot, in one line; asked only where `supports` says so."""
        ...

    def build(self, jobs: Sequence[Job]) -> list[Artifact | str]:
        """Return the artifact of each job, or why there is none."""
        ...

    def compile(self, artifact: Artifact) -> Executable:
        """Compile an artifact of this runtime's kind.

        Raises:
            Exception: whatever the engine rejects.
        """
        ...

    def expected_kernels(self, workload: Workload) -> Mapping[str, int]:
        """Return how many kernels of each kind a network must run on if its layers are to have the formats
        that they ask for; kinds that are not named may have any number.
        """
        ...


@runtime_checkable
class KernelTimer(Protocol):
    """A runtime that can say what each kernel takes inside a network."""

    def kernel_times(self, artifact: Artifact, runs: int) -> tuple[KernelTime, ...]:
        """Return the kernels of a network in the order in which they run; none where it cannot tell.

        Raises:
            Exception: whatever the engine rejects.
        """
        ...


@runtime_checkable
class WritesFiles(Protocol):
    """A runtime that runs ONNX files as files of its own, which are what goes to a device."""

    @property
    def file_name(self) -> str:
        """What such a file is called beside the ONNX file."""
        ...

    def own_file(self, content: bytes, example: Arrays | None = None) -> bytes:
        """Return what an ONNX file becomes.

        Args:
            example: what it reads, which binds the sizes that it leaves open.

        Raises:
            TrilobitError: it cannot be converted; says why.
        """
        ...


@runtime_checkable
class CountsMemory(Protocol):
    """A runtime that knows what its files need on a microcontroller."""

    def require_counter(self) -> None:
        """Import what counts.

        Raises:
            ModuleNotFoundError: it is not installed.
        """
        ...

    def memory_bytes(self, content: bytes) -> tuple[int, int]:
        """Return what a file needs there: working memory, and flash for it or what it becomes.

        Raises:
            TrilobitError: it does not run there; says why.
        """
        ...


@runtime_checkable
class RoundsItsWay(Protocol):
    """A runtime whose integer kernels may rescale sums otherwise than simulations do, so that a code in
    hundreds is the next one.
    """

    @property
    def agreement(self) -> float:
        """Share of answers in which files are nevertheless their simulation's."""
        ...


def own_files(runtime: Runtime, content: bytes, example: Arrays | None = None) -> dict[str, bytes]:
    """Return the file that a runtime makes of an ONNX file and runs in its place, by its name; none where it
    runs the ONNX file itself.

    Args:
        example: see `WritesFiles`.

    Raises:
        TrilobitError: it cannot be converted; says why.
    """
    return {runtime.file_name: runtime.own_file(content, example)} if isinstance(runtime, WritesFiles) else {}


def own_path(runtime: Runtime, model: Path) -> Path:
    """Return the file that a runtime runs in place of an ONNX file, where it lies beside that; else the ONNX
    file.
    """
    beside = model.with_name(runtime.file_name) if isinstance(runtime, WritesFiles) else model
    return beside if beside.is_file() else model


def batches(executable: Executable, inputs: Arrays) -> Iterator[tuple[dict[str, Array], int]]:
    """Yield inputs (n, ...) in batches of the executable's own size, and how many items of each count: the
    last one is filled up with zeros where the size is fixed.
    """
    size = executable.inputs[0].shape[0] or OPEN_BATCH
    fixed = executable.inputs[0].shape[0] is not None
    n = len(next(iter(inputs.values())))
    for start in range(0, n, size):
        batch = {name: array[start : start + size] for name, array in inputs.items()}
        count = min(size, n - start)
        if fixed and count < size:
            batch = {name: _padded(array, size) for name, array in batch.items()}
        yield {name: np.ascontiguousarray(array) for name, array in batch.items()}, count


def _padded(array: Array, size: int) -> Array:
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def outputs(executable: Executable, stream: Iterable[Arrays]) -> Iterator[dict[str, Array]]:
    """Yield the executable's outputs for each element of a stream of inputs by name, (n, ...) each: an
    element may have any number of items, whatever the executable's own batch.
    """
    for inputs in stream:
        parts = [
            {name: array[:count] for name, array in executable.run(batch).items()}
            for batch, count in batches(executable, inputs)
        ]
        yield {info.name: np.concatenate([part[info.name] for part in parts]) for info in executable.outputs}


def single_output(executable: Executable, array: Array) -> Array:
    """Return the only output (n, ...) of an executable for its only input (n, ...).

    Raises:
        ValueError: it has several inputs or outputs.
    """
    if len(executable.inputs) != 1 or len(executable.outputs) != 1:
        raise ValueError("has several inputs or outputs; a network has one of each")
    [result] = outputs(executable, [{executable.inputs[0].name: array}])
    return result[executable.outputs[0].name]

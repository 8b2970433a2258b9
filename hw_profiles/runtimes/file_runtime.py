"""What runtimes that run ONNX files on this machine have in common."""

from collections.abc import Mapping, Sequence

import numpy as np

from hw_profiles.errors import one_line
from hw_profiles.graph.formats import WHOLE, is_known, needs_scale
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.interleave import Timed, timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.example_feeds import example_feeds, reads_whole
from hw_profiles.runtimes.onnx_file import input_infos
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, ArtifactKind, Dialect, Job, TensorInfo


class FileRuntime:
    """A runtime that takes each network as its ONNX file; a subclass says what it is and compiles files.

    Attributes:
        engine: as errors call it.
        ops: operations that it runs.
    """

    engine: str = ""
    ops: frozenset[str] = frozenset()

    @property
    def artifact(self) -> ArtifactKind:
        """ONNX files."""
        return "onnx"

    @property
    def clock(self) -> Clock:
        """The wall, which is right wherever the work is done."""
        return "wall"

    @property
    def dialect(self) -> Dialect:
        """As ONNX has it."""
        return Dialect("qdq", "uint8")

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """Real numbers only."""
        return frozenset((("fp32", "fp32"),))

    @property
    def integer_kernels(self) -> frozenset[str]:
        """None that it names."""
        return frozenset()

    def has_kernel(self, weight: str, activation: str) -> bool:
        """Return whether it has kernels for weights and activations as they are stored."""
        return (weight, activation) in self.formats

    def runs(self, weight: str, activation: str) -> bool:
        """Return whether it runs such weights on such activations: by a kernel for them, or for size only, in
        real numbers that the file makes of the weights: by the kernel of these.
        """
        real = not needs_scale(activation) and self.has_kernel(activation, activation)
        return real or self.has_kernel(weight, activation)

    def supports(self, layer: Layer) -> bool:
        """Return whether it has the operation, in the formats that the layer asks for."""
        weight, activation = layer.weight_format, layer.activation_format
        if not is_known(weight, activation):
            return False
        if activation in WHOLE:
            return layer.op in self.ops
        computes_on_codes = layer.weighted or layer.is_conversion or layer.keeps_codes
        if layer.kind == layer.op and not computes_on_codes:
            return layer.op in self.ops and not needs_scale(activation) and self.runs(weight, activation)
        if layer.weighted or layer.kind == "mbconv":
            return layer.kind in self.ops and self.runs(weight, activation)
        return layer.kind in self.ops and self.has_kernel(activation, activation)

    def why_not(self, layer: Layer) -> str:
        """Return which operation, or which pair of formats, it lacks."""
        pair = f"{layer.weight_format} weights on {layer.activation_format} activations"
        return f"{self.engine} has no {layer.kind} of {pair}"

    def build(self, jobs: Sequence[Job]) -> list[Artifact | str]:
        """Return the ONNX file of each job, or why it cannot be written."""
        return [_file(job) for job in jobs]

    def expected_kernels(self, workload: Workload) -> Mapping[str, int]:
        """Return nothing: how it runs a layer is its own business."""
        return {}


class FileExecutable:
    """An executable that is timed by running it again and again; a subclass runs it.

    Attributes:
        inputs, outputs: what it reads and gives.
    """

    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run one batch."""
        raise NotImplementedError

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on the same inputs."""
        inputs = timed_inputs(self.inputs, batch or 1, example)
        return timed(lambda: self.run(inputs), clock)


def _file(job: Job) -> Artifact | str:
    try:
        content = job.onnx()
        example = example_feeds(job.workload, input_infos(content)) if reads_whole(job.workload) else None
        return Artifact(content, "onnx", job.exact_sums, example)
    except Exception as error:  # what cannot be written becomes a row with its error
        return one_line(error)


def timed_inputs(infos: Sequence[TensorInfo], batch: int, example: Arrays | None = None) -> dict[str, Array]:
    """Return what an executable reads while it is timed, contiguous, by input: an example of its own kind of
    inputs, or random numbers.

    Args:
        batch: what stands for a size that is open; without an example.

    Raises:
        ValueError: the example lacks an input.
    """
    if example is None:
        rng = np.random.default_rng(0)
        return {info.name: random_input(info, batch, rng) for info in infos}
    if missing := [info.name for info in infos if info.name not in example]:
        raise ValueError(f"the example has no {', '.join(missing)}; it has {', '.join(example) or 'nothing'}")
    return {info.name: np.ascontiguousarray(example[info.name]) for info in infos}


def random_input(info: TensorInfo, batch: int, rng: np.random.Generator) -> Array:
    """Return values of the kind that an input takes.

    Args:
        batch: what stands for a size that is open.
    """
    shape = tuple(batch if size is None else size for size in info.shape)
    dtype = np.dtype(info.dtype)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, min(256, np.iinfo(dtype).max + 1), shape).astype(dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)

"""LiteRT on this machine."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from hw_profiles.errors import one_line
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import FP32, INPUT, Layer, map_layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.interleave import Timed, timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.reference.random_units import random_units
from hw_profiles.reference.unit_numbers import UnitNumbers
from hw_profiles.runtimes.file_runtime import FileExecutable, timed_inputs
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.litert.emitter import INT8, OFFSET, flat_model, refusal
from hw_profiles.runtimes.litert.flat_file import serialise
from hw_profiles.runtimes.litert.options import LitertOptions
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, ArtifactKind, Dialect, Job, TensorInfo

CHANNELS, SIZE, OUTPUTS = 64, 4, 8  # of the convolution that is run to learn what happens to large sums
LARGEST_CODE, LARGEST_WEIGHT, EXACT = 255, 127, 200
STANDARD_ERROR = 2


def to_tflite(work: Workload, numbers: Mapping[str, UnitNumbers]) -> bytes:
    """Return the `.tflite` file of a network of layers that run by themselves, for one image.

    Args:
        numbers: of each layer by its name; neighbours agree about the tensor between them.

    Raises:
        TrilobitError: LiteRT has no such layer; says why.
    """
    return serialise(*flat_model(work, numbers))


class LitertExecutable(FileExecutable):
    """An interpreter of a file, for one image with its channels last.

    Args:
        content: of the file.
        options: of the runtime.
    """

    def __init__(self, content: bytes, options: LitertOptions) -> None:
        _introduced()
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        resolver = OpResolverType.AUTO if options.provider == "XNNPACK" else plain
        self._interpreter: Any = Interpreter(
            model_content=content, num_threads=options.threads, experimental_op_resolver_type=resolver
        )
        self._interpreter.allocate_tensors()
        self._reads = self._interpreter.get_input_details()
        self._gives = self._interpreter.get_output_details()
        self.inputs = tuple(map(_tensor_info, self._reads))
        self.outputs = tuple(map(_tensor_info, self._gives))

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs for one image by name."""
        self._set(inputs)
        self._interpreter.invoke()
        return {each["name"]: self._interpreter.get_tensor(each["index"]) for each in self._gives}

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on an input that stays where it is."""
        self._set(timed_inputs(self.inputs, 1, example))
        return timed(self._interpreter.invoke, clock)

    def kernels(self) -> Counter[str]:
        """Return the operators of the file; what a delegate took over is computed by it, and is one more."""
        return Counter(each["op_name"] for each in self._interpreter._get_ops_details())

    def _set(self, inputs: Arrays) -> None:
        for each in self._reads:
            self._interpreter.set_tensor(each["index"], np.ascontiguousarray(inputs[each["name"]]))


def _tensor_info(details: Mapping[str, Any]) -> TensorInfo:
    shape = tuple(int(size) for size in details["shape"])
    return TensorInfo(details["name"], shape, str(np.dtype(details["dtype"])))


class LitertRuntime:
    """LiteRT on this machine: files are written of networks, not of others' ONNX files."""

    def __init__(self, options: LitertOptions | None = None) -> None:
        self.options = options or LitertOptions()

    @property
    def artifact(self) -> ArtifactKind:
        """Its own files."""
        return "tflite"

    @property
    def clock(self) -> Clock:
        """The calling thread where that does all the work."""
        return "thread" if self.options.threads == 1 else "wall"

    @property
    def dialect(self) -> Dialect:
        """Layers compute on integers as they are."""
        return Dialect("integer", "int8")

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """What is written."""
        return frozenset(((FP32, FP32), (INT8, INT8)))

    @property
    def integer_kernels(self) -> frozenset[str]:
        """None that it names apart from those of real numbers."""
        return frozenset()

    def describe(self) -> DeviceInfo:
        """Return the engine with its options."""
        return DeviceInfo(
            name=f"litert-{self.options.provider.lower()}-{self.options.threads}t",
            cpu=cpu_model(),
            engine="ai-edge-litert",
            engine_version=version("ai-edge-litert"),
            provider=self.options.provider,
            threads=self.options.threads,
            integer_sums=integer_sums(self.options),
        )

    def supports(self, layer: Layer) -> bool:
        """Return whether the layer is written."""
        return not self.why_not(layer)

    def why_not(self, layer: Layer) -> str:
        """Return why it is not."""
        whole = lower(Workload((layer.kind,), (layer,), (tuple(-1 for _ in layer.inputs),), layer.in_format))
        return next((why for part in whole.layers if (why := refusal(part))), "")

    def build(self, jobs: Sequence[Job]) -> list[Artifact | str]:
        """Return the file of each job with random numbers, or why there is none."""
        return [_built(job.workload) for job in jobs]

    def compile(self, artifact: Artifact) -> LitertExecutable:
        """Open a file.

        Raises:
            Exception: whatever LiteRT rejects.
        """
        return LitertExecutable(artifact.content, self.options)

    def expected_kernels(self, workload: Workload) -> Mapping[str, int]:
        """Return nothing: delegates take over what they like."""
        return {}


def _built(work: Workload) -> Artifact | str:
    try:
        lowered = lower(work)
        return Artifact(to_tflite(lowered, random_units(lowered, np.random.default_rng(0))), "tflite")
    except Exception as error:  # what cannot be written becomes a row with its error
        return one_line(error)


@cache
def integer_sums(options: LitertOptions) -> Literal["exact", "saturating"]:
    """Return what its kernels do with sums that leave 16 bits: a pointwise convolution of the largest codes
    is run.
    """
    executable = LitertExecutable(_largest_sums(), options)
    [image] = executable.inputs
    largest = np.full((1, SIZE, SIZE, CHANNELS), LARGEST_CODE - OFFSET, np.int8)
    [codes] = executable.run({image.name: largest}).values()
    return "exact" if (codes == EXACT - OFFSET).all() else "saturating"


def _largest_sums() -> bytes:
    """Return a convolution whose weights are all the largest code, in steps of which the exact sum has the
    code `EXACT`.
    """
    net = WorkloadBuilder((CHANNELS, SIZE, SIZE), INT8)
    net.add("sums", map_layer("conv", (CHANNELS, SIZE, SIZE), OUTPUTS, 1, 1, 1, "none", INT8, INT8), INPUT)
    weight = np.full((OUTPUTS, CHANNELS, 1, 1), LARGEST_WEIGHT, np.int8)
    step = QuantParams(LARGEST_CODE * LARGEST_WEIGHT * CHANNELS / EXACT, 0)
    ones, zeros = np.ones(OUTPUTS, np.float32), np.zeros(OUTPUTS, np.float32)
    return to_tflite(net.build(), {"sums": UnitNumbers((QuantParams(1.0, 0),), step, weight, ones, zeros)})


@cache
def _introduced() -> None:
    """Let LiteRT say once, to nobody, which delegate it made: it does so on standard error."""
    kept = os.dup(STANDARD_ERROR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STANDARD_ERROR)
        Interpreter(model_content=_largest_sums(), num_threads=1).allocate_tensors()
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)
        os.close(nowhere)

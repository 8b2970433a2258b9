"""OpenVINO on this machine."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from itertools import product
from typing import Any, Literal

import numpy as np
import onnx

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.graph.formats import ELEMENTS, FLOAT16, FLOAT32, element_types, in_integers, tensor_bits
from hw_profiles.graph.layer import Layer, computes_in_integers
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.interleave import Timed, timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.file_runtime import FileExecutable, FileRuntime, timed_inputs
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.openvino.compiled import CompiledFiles
from hw_profiles.runtimes.openvino.engine import openvino
from hw_profiles.runtimes.openvino.file_kernels import FileKernels, seconds_of
from hw_profiles.runtimes.openvino.kernels import INTEGER_KERNELS, average_us, executed_graph
from hw_profiles.runtimes.openvino.operations import OPERATIONS
from hw_profiles.runtimes.openvino.options import CPU, OpenVinoOptions
from hw_profiles.runtimes.ort.integer_sums import largest_inputs, saturating_kinds, saturating_model
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, Dialect, KernelTime, TensorInfo

CODE_BITS = 8  # of activations and weights that its integer kernels multiply
STORED_BITS = (4, 8)  # of weights' codes that it reads: it has no type of 2 bits
# lines of an error that say where in the engine it was found
_WHERE = (
    "Exception from ",
    "Check '",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "While validating",
)
SETTLING_RUNS = 2  # that allocate and choose
_LAYERS = {"Conv": "Convolution", "Gemm": "FullyConnected", "MatMul": "FullyConnected"}


@cache
def core() -> Any:
    """Return the engine: it is started once."""
    return openvino.Core()


@cache
def integer_sums(provider: str) -> Literal["exact", "saturating", "unknown"]:
    """Return what this machine's kernels for unsigned activations and signed weights do with sums that leave
    16 bits, found by running some; unknown where it is not integer kernels that run them.
    """
    try:
        executable = OpenVinoRuntime(OpenVinoOptions(provider=provider)).compile(Artifact(saturating_model()))
        if not INTEGER_KERNELS & executable.kernels().keys():
            return "unknown"
        return "saturating" if saturating_kinds(executable.run(largest_inputs())) else "exact"
    except Exception:  # whatever the engine rejects
        return "unknown"


class OpenVinoExecutable(FileExecutable):
    """A compiled model with a request of its own.

    Args:
        compiled: by OpenVINO.
        model: the file.
        batch: items of a call where the model takes any number.
        naming: gives it compiled so that its graph names every node of the file.
    """

    def __init__(self, compiled: Any, model: bytes, batch: int, naming: Callable[[], Any]) -> None:
        self._compiled, self._batch, self._naming = compiled, batch, naming
        self.request = compiled.create_infer_request()
        graph = onnx.load_from_string(model).graph
        self._graph = graph
        self.inputs = tuple(
            _tensor_info(port, {value.name for value in graph.input}) for port in compiled.inputs
        )
        self.outputs = tuple(
            _tensor_info(port, {value.name for value in graph.output}) for port in compiled.outputs
        )

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs of one batch by name."""
        given = {self._ports[name]: np.ascontiguousarray(array) for name, array in inputs.items()}
        results = self.request.infer(given)
        return {info.name: np.array(results[i]) for i, info in enumerate(self.outputs)}

    @cached_property
    def _ports(self) -> Mapping[str, int]:
        return {info.name: i for i, info in enumerate(self.inputs)}

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on inputs that stay where they are."""
        request = self._compiled.create_infer_request()
        for name, array in timed_inputs(self.inputs, batch or self._batch, example).items():
            request.set_input_tensor(self._ports[name], openvino.Tensor(array))
        return timed(request.infer, clock)

    @cached_property
    def _kernels(self) -> FileKernels:
        return FileKernels(self._graph, executed_graph(self._naming()))

    def kernels(self) -> Counter[str]:
        """Return how many kernels of each kind it runs."""
        return self._kernels.counts()

    def named_kernels(self) -> dict[str, str]:
        """Return the kind of kernel by the name of each node that it computes."""
        return self._kernels.named()

    def fused_sums(self) -> frozenset[str]:
        """Return the convolutions that it computes with the sum behind them: what they give is not rounded
        before it is added, whatever the file says.
        """
        return self._kernels.fused_sums()

    def kernel_times(self, seconds: Mapping[str, float]) -> tuple[KernelTime, ...]:
        """Return its kernels with what they take, by the names of nodes and tensors of the file."""
        return self._kernels.times(seconds)


def _tensor_info(port: Any, declared: set[str]) -> TensorInfo:
    """Return an input or output by its name in the file; a tensor may have several in the engine."""
    names = sorted(port.get_names())
    name = next((each for each in names if each in declared), names[0] if names else "")
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorInfo(name, shape, str(np.dtype(port.get_element_type().to_dtype())))


class OpenVinoRuntime(FileRuntime):
    """OpenVINO. Its integer kernels read unsigned and signed codes alike.

    Args:
        elsewhere: gives what its device computes in, by the engine's words, where that is on another
            machine; None where it is on this one.

    Raises:
        TrilobitError: it has no such device here, or that does not compute in this precision.
    """

    engine = "openvino"
    ops = frozenset(kind for kinds in OPERATIONS.functions.values() for kind in kinds)

    def __init__(
        self,
        options: OpenVinoOptions | None = None,
        *,
        elsewhere: Callable[[], frozenset[str]] | None = None,
    ) -> None:
        self.options, self._elsewhere = options or OpenVinoOptions(), elsewhere
        if elsewhere is None:
            self._require()

    @cached_property
    def _can(self) -> frozenset[str]:
        if self._elsewhere is not None:
            return self._elsewhere()
        return frozenset(core().get_property(self.options.provider, "OPTIMIZATION_CAPABILITIES"))

    @cached_property
    def _files(self) -> CompiledFiles:
        return CompiledFiles(core(), self.options)

    def _require(self) -> None:
        """Raise `TrilobitError` where this machine has no such device, or no such precision."""
        provider, present = self.options.provider, core().available_devices
        if provider not in present:
            raise TrilobitError(
                f"OpenVINO has no device {provider!r} here; it has {', '.join(present) or 'none'}"
            )
        known = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
        if known[self.options.precision] not in self._can:
            able = ", ".join(short for short, name in known.items() if name in self._can)
            raise TrilobitError(
                f"precision {self.options.precision!r}: this machine's {provider} computes in {able}"
            )

    @property
    def dialect(self) -> Dialect:
        """As ONNX has it, but for sums: see `OpenVinoExecutable.fused_sums`."""
        return Dialect("qdq", "uint8")

    @property
    def clock(self) -> Clock:
        """The calling thread where that does all the work."""
        return "thread" if self.options.threads == 1 and self.options.provider == CPU else "wall"

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """What of the built-in formats it has kernels for."""
        return frozenset((w, a) for w, a in product(ELEMENTS, repeat=2) if self.has_kernel(w, a))

    def has_kernel(self, weight: str, activation: str) -> bool:
        """Return whether there is a kernel: weights of fewer bits run on those of 8 where their codes have a
        type that OpenVINO reads.
        """
        if in_integers(weight, activation):
            signed = not element_types(weight).unsigned  # others it computes in real numbers
            return (
                tensor_bits(activation) == CODE_BITS and signed and _is_read(weight) and "INT8" in self._can
            )
        element = element_types(activation).tensor
        half = element == FLOAT16 and "FP16" in self._can
        return weight == activation and (element == FLOAT32 or half)

    def runs(self, weight: str, activation: str) -> bool:
        """Return whether it runs such weights on such activations, those that it reads."""
        return (not element_types(weight).scaled or _is_read(weight)) and super().runs(weight, activation)

    @property
    def integer_kernels(self) -> frozenset[str]:
        """By the layers of the graph that it executes."""
        return INTEGER_KERNELS

    def describe(self) -> DeviceInfo:
        """Return the engine with its options."""
        options = self.options
        words = [*options.arrangement.lower().split(), f"{options.threads}t"]
        words += [f"b{options.batch}"] if options.batch > 1 else []
        return DeviceInfo(
            name=f"openvino-{'-'.join(words)}",
            cpu=cpu_model(),
            engine=self.engine,
            engine_version=openvino.__version__.partition("-")[0],
            provider=options.arrangement,
            threads=options.threads,
            batch=options.batch,
            integer_sums=integer_sums(options.provider),
        )

    def why_not(self, layer: Layer) -> str:
        """Return which operation, or which pair of formats, it lacks."""
        return f"{super().why_not(layer)} on {self.options.provider}"

    def compile(self, artifact: Artifact) -> OpenVinoExecutable:
        """Compile a file.

        Raises:
            TrilobitError: whatever OpenVINO rejects, in the line of it that says why.
        """
        content = artifact.content
        try:
            compiled, names_all = self._files.compile(content)
        except RuntimeError as error:
            raise TrilobitError(f"OpenVINO: {_reason(error)}") from None
        naming = (lambda: compiled) if names_all else partial(self._files.anew, content)
        return OpenVinoExecutable(compiled, content, self.options.batch, naming)

    def kernel_times(self, artifact: Artifact, runs: int) -> tuple[KernelTime, ...]:
        """Return the kernels of a network with the average of what each takes, on its example.

        The engine counts whole microseconds of all runs since it started: those that allocate are taken off.

        Raises:
            Exception: whatever OpenVINO rejects.
        """
        compiled = self._files.anew(artifact.content, PERF_COUNT=True)
        executable = OpenVinoExecutable(compiled, artifact.content, self.options.batch, lambda: compiled)
        inputs = timed_inputs(executable.inputs, self.options.batch, artifact.example)
        request = executable.request
        averages = []
        for count in (SETTLING_RUNS, runs):
            for _ in range(count):
                executable.run(inputs)
            averages.append(average_us(request))
        first, whole = averages
        seconds = seconds_of(first, whole, SETTLING_RUNS, runs)
        return executable.kernel_times(seconds)

    def expected_kernels(self, workload: Workload) -> Counter[str]:
        """Return how many convolutions and products with stored matrices must compute on integers, and how
        many in real numbers;
        nothing is known of other hardware than the processor.
        """
        counts: Counter[str] = Counter()
        if self.options.provider != CPU:
            return counts
        for layer in lower(workload).layers:
            if layer.op in _LAYERS and layer.weighted:
                numbers = "I8" if computes_in_integers(layer) else self.options.precision
                counts[f"{_LAYERS[layer.op]}_{numbers}"] += 1
        return counts


def _reason(error: RuntimeError) -> str:
    """Return the line of an error of the engine that says why, not where in its sources."""
    lines = [line.strip() for line in str(error).partition("\nSummary:")[0].splitlines()]
    telling = [line for line in lines if line and not line.startswith(_WHERE)]
    return telling[-1] if telling else one_line(error)


def _is_read(weight: str) -> bool:
    """Return whether it has a type for the codes of such weights."""
    return (
        next((bits for bits in (2, 4, 8) if element_types(weight).weight.bits <= bits), CODE_BITS)
        in STORED_BITS
    )

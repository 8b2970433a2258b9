"""ONNX Runtime, any installed execution provider. The only place in `hw_profiles` that imports it."""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import onnx

# Unless told before its import, the published wheel writes a device id to the home folder and sends events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import (
    ELEMENTS,
    FLOAT16,
    FLOAT32,
    element_types,
    in_integers,
    is_integer,
    is_known,
    tensor_bits,
    weight_bits,
)
from hw_profiles.graph.layer import Layer, computes_in_integers
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.interleave import Timed, timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.file_runtime import FileRuntime, timed_inputs
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.onnx_file import EXACT_SUMS, needs_exact_sums
from hw_profiles.runtimes.onnx_layers import LAYER_KINDS
from hw_profiles.runtimes.ort.integer_sums import (
    largest_inputs,
    saturating_kinds,
    saturating_model,
)
from hw_profiles.runtimes.ort.kernel_times import kernel_times
from hw_profiles.runtimes.ort.options import OrtOptions
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, KernelTime, TensorInfo

CODE_BITS = 8  # of activations and weights that its integer kernels multiply
HALF_PROVIDERS = ("CUDA", "TensorRT", "NvTensorRTRTX", "ROCM", "MIGraphX", "Dml", "CoreML", "QNN", "OpenVINO")
OPERATIONS: Consumer[tuple[str, ...]] = Consumer(
    "ONNX Runtime", LAYER_KINDS, otherwise="it has no such operation"
)
CPU = "CPUExecutionProvider"
# the kernel that a layer with quantized activations must run on, by its operation
INTEGER_KERNELS = {
    "stem": "QLinearConv",
    "conv": "QLinearConv",
    "Conv": "QLinearConv",
    "MatMul": "MatMulIntegerToFloat",
    "add": "QLinearAdd",
    "add_converted": "QLinearAdd",
    "linear": "QGemm",
    "pool": "QLinearGlobalAveragePool",
    "mul": "QLinearMul",
    "avgpool": "QLinearAveragePool",
}
CACHED_PRODUCT = "QLinearMatMul"  # of a matrix product that a cache keeps as codes
KEYS_AND_VALUES = (1, 2)  # inputs of an attention
INTEGER_OPS = tuple(dict.fromkeys((*INTEGER_KERNELS.values(), CACHED_PRODUCT)))
# of layers that imported models have, and no family
MORE_INTEGER_OPS = (
    *("DynamicQuantizeMatMul", "MatMulInteger", "MatMulNBits"),
    *("QLinearConcat", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"),
)
_OWN_NAME = re.compile(r"(_token_\d+|_nchwc)+$")  # what ONNX Runtime adds to names of nodes
_DTYPES = {"float16": "float16", "float": "float32", "double": "float64"}  # others are called as numpy does


def open_session(
    model: bytes | Path,
    *,
    threads: int = 1,
    provider: str = CPU,
    optimized: Path | None = None,
    profile: Path | None = None,
    exact_sums: bool = False,
) -> onnxruntime.InferenceSession:
    """Return a session with the options that every Trilobit measurement and check uses.

    Args:
        optimized: receives the optimised graph.
        profile: how the file begins that receives the times of kernels when profiling is ended.
        exact_sums: compute integer layers exactly where this machine's kernels saturate, 1.3 to 1.5 times
            slower. Elsewhere the option is left out: it would only cost time (2.4 times with VNNI).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it rejects it raises too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if exact_sums and integer_sums(provider) == "saturating":
        options.add_session_config_entry(EXACT_SUMS, "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, [provider])


def open_exactly(model: bytes | Path, **options: Any) -> onnxruntime.InferenceSession:
    """Return a session that computes what a file says on every processor: with the option that keeps sums
    from saturating where its weights need that (`open_session` takes `options`).
    """
    content = model.read_bytes() if isinstance(model, Path) else model
    return open_session(model, exact_sums=needs_exact_sums(content), **options)


@cache
def saturating_kernels(provider: str) -> tuple[str, ...] | None:
    """Return the kinds of integer kernels, of `integer_sums.KERNELS`, that saturate here; None where the
    provider does not run integer kernels, so that it cannot be told.
    """
    try:
        session = open_session(saturating_model(), provider=provider)
        names = [output.name for output in session.get_outputs()]
        return saturating_kinds(dict(zip(names, session.run(None, largest_inputs()), strict=True)))
    except Exception:  # whatever the engine rejects
        return None


def integer_sums(provider: str) -> Literal["exact", "saturating", "unknown"]:
    """Return what this machine's kernels do with sums that leave 16 bits."""
    kinds = saturating_kernels(provider)
    return "unknown" if kinds is None else "saturating" if kinds else "exact"


class OrtExecutable:
    """A session.

    Args:
        batch: items of a call where the model takes any number.
    """

    def __init__(self, session: onnxruntime.InferenceSession, model: bytes, batch: int) -> None:
        self.session = session
        self._model, self._batch = model, batch

    @cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model reads."""
        return tuple(map(_tensor_info, self.session.get_inputs()))

    @cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the model gives."""
        return tuple(map(_tensor_info, self.session.get_outputs()))

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs of one batch by name."""
        values = self.session.run(None, dict(inputs))
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on preallocated inputs."""
        binding = self.session.io_binding()
        for name, array in timed_inputs(self.inputs, batch or self._batch, example).items():
            binding.bind_cpu_input(name, array)
        for info in self.outputs:
            binding.bind_output(info.name)
        return timed(lambda: self.session.run_with_iobinding(binding), clock)

    def kernels(self) -> Counter[str]:
        """Return the operators of the graph that ONNX Runtime runs after optimisation."""
        return optimised_ops(self._model)

    def named_kernels(self) -> dict[str, str]:
        """Return the operator by the name of the node that it was made of."""
        return kernel_names(_optimised(self._model))


def _tensor_info(argument: onnxruntime.NodeArg) -> TensorInfo:
    element = argument.type.removeprefix("tensor(").removesuffix(")")
    # open ones have a name or none, or are negative
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape)
    return TensorInfo(argument.name, shape, _DTYPES.get(element, element))


def optimised_ops(model: bytes) -> Counter[str]:
    """Return the operators of the graph that ONNX Runtime runs after optimisation."""
    return kernel_counts(_optimised(model))


def kernel_counts(nodes: Iterable[onnx.NodeProto]) -> Counter[str]:
    """Return the operators of a graph that ONNX Runtime has optimised."""
    counts = Counter(node.op_type for node in nodes)
    counts["Conv"] += counts.pop("FusedConv", 0)
    return counts


def kernel_names(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """Return the operator by the name of the node that it was made of, in such a graph."""
    return {_OWN_NAME.sub("", node.name): node.op_type for node in nodes}


def _optimised(model: bytes) -> list[onnx.NodeProto]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        open_session(model, optimized=path)
        return list(onnx.load(path).graph.node)


def expected_kernels(workload: Workload) -> Counter[str]:
    """Return the operators that the graph which is optimised for a CPU must have."""
    counts: Counter[str] = Counter(dict.fromkeys((*INTEGER_OPS, "Conv"), 0))
    work = lower(workload)
    cached = cached_products(work)
    for position, layer in enumerate(work.layers):
        if layer.kind in INTEGER_KERNELS and computes_in_integers(layer):
            counts[CACHED_PRODUCT if position in cached else INTEGER_KERNELS[layer.kind]] += 1
        elif layer.op == "Conv":
            counts["Conv"] += 1
    return counts


def cached_products(work: Workload) -> frozenset[int]:
    """Return the matrix products that nothing reads but an attention which keeps them as codes: ONNX Runtime
    rounds them in the kernel itself.
    """
    readers: dict[int, set[bool]] = {}
    for layer, sources in zip(work.layers, work.inputs, strict=True):
        kept = layer.op == "Attention" and is_integer(layer.values.text("cache"))
        for place, tensor in enumerate(sources):
            readers.setdefault(tensor, set()).add(kept and place in KEYS_AND_VALUES)
    return frozenset(
        work.producers[tensor]
        for tensor, kinds in readers.items()
        if tensor >= 0 and kinds == {True} and work.layers[work.producers[tensor]].op == "MatMul"
    )


class OrtRuntime(FileRuntime):
    """ONNX Runtime. Of its integer kernels only those for unsigned activations and signed weights are fast.

    Args:
        here: whether its sessions are on this machine.

    Raises:
        TrilobitError: the provider is not installed here, and must be.
    """

    engine = "onnxruntime"
    ops = frozenset(kind for kinds in OPERATIONS.functions.values() for kind in kinds)

    def __init__(self, options: OrtOptions | None = None, *, here: bool = True) -> None:
        self.options = options or OrtOptions()
        self._short = self.options.provider.removesuffix("ExecutionProvider")
        self._provider = f"{self._short}ExecutionProvider"
        installed = onnxruntime.get_available_providers()
        if here and self._provider not in installed:
            providers = ", ".join(p.removesuffix("ExecutionProvider") for p in installed)
            raise TrilobitError(
                f"execution provider {self.options.provider!r} is not installed; installed: {providers}"
            )

    @property
    def provider(self) -> str:
        """Its execution provider, by the whole name."""
        return self._provider

    @property
    def clock(self) -> Clock:
        """The wall where several threads or an accelerator work."""
        return "thread" if self.options.threads == 1 and self._provider == CPU else "wall"

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """What of the built-in formats it has kernels for."""
        return frozenset((w, a) for w, a in product(ELEMENTS, repeat=2) if self.has_kernel(w, a))

    def has_kernel(self, weight: str, activation: str) -> bool:
        """Return whether every provider has it, or it is half precision and there is hardware for that;
        weights of fewer bits run on the kernels of 8.
        """
        if in_integers(weight, activation):
            return tensor_bits(activation) == CODE_BITS >= weight_bits(weight)
        element = element_types(activation).tensor
        half = element == FLOAT16 and self._short in HALF_PROVIDERS
        return weight == activation and (element == FLOAT32 or half)

    @property
    def integer_kernels(self) -> frozenset[str]:
        """By the operators of its optimised graph."""
        return frozenset((*INTEGER_OPS, *MORE_INTEGER_OPS))

    def describe(self) -> DeviceInfo:
        """Return the engine with its options."""
        threads, batch = self.options.threads, self.options.batch
        suffix = f"-b{batch}" if batch > 1 else ""
        return DeviceInfo(
            name=f"ort-{self._short.lower()}-{threads}t{suffix}",
            cpu=cpu_model(),
            engine="onnxruntime",
            engine_version=onnxruntime.__version__,
            provider=self._provider,
            threads=threads,
            batch=batch,
            integer_sums=integer_sums(self._provider),
        )

    def why_not(self, layer: Layer) -> str:
        """Return which operation, or which pair of formats, the provider lacks."""
        activation = layer.activation_format
        narrow = is_known(activation) and is_integer(activation) and tensor_bits(activation) < CODE_BITS
        reason = "; its integer kernels read activations of 8 bits" if narrow else ""
        return f"{super().why_not(layer)} on {self._short}{reason}"

    def compile(self, artifact: Artifact) -> OrtExecutable:
        """Open a session.

        Raises:
            TrilobitError: the provider could not start.
            Exception: whatever ONNX Runtime rejects.
        """
        exact = artifact.exact_sums and needs_exact_sums(artifact.content)
        session = open_session(
            artifact.content, threads=self.options.threads, provider=self._provider, exact_sums=exact
        )
        if (started := session.get_providers()[0]) != self._provider:
            raise TrilobitError(f"{self._short} could not start; ONNX Runtime fell back to {started}")
        return OrtExecutable(session, artifact.content, self.options.batch)

    def kernel_times(self, artifact: Artifact, runs: int) -> tuple[KernelTime, ...]:
        """Return the kernels of a network with what each takes inside it, on its example; none where other
        hardware than the CPU runs them, which the profiler does not wait for.

        Raises:
            Exception: whatever ONNX Runtime rejects.
        """
        if self._provider != CPU:
            return ()
        with tempfile.TemporaryDirectory() as name:
            optimised, profile = Path(name) / "optimised.onnx", Path(name) / "profile"
            session = open_session(
                artifact.content, threads=self.options.threads, optimized=optimised, profile=profile
            )
            infos = tuple(map(_tensor_info, session.get_inputs()))
            inputs = timed_inputs(infos, self.options.batch, artifact.example)
            return kernel_times(session, optimised, inputs, runs)

    def expected_kernels(self, workload: Workload) -> Counter[str]:
        """Return the operators that the optimised graph must have; what other providers make of quantized
        layers is not known.
        """
        return expected_kernels(workload) if self._provider == CPU else Counter()

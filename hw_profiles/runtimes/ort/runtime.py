"""ONNX Runtime, any installed execution provider. The only place in `hw_profiles` that imports it."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Unless told before its import, the published wheel writes a device id to the home folder and sends events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import LayerSpec
from hw_profiles.measure.backend import DeviceInfo, Job
from hw_profiles.measure.energy import Meter, find_meter, joules_of
from hw_profiles.measure.host import cpu_model, pinned
from hw_profiles.measure.in_context import Probe, in_context
from hw_profiles.measure.interleave import Pulse, Timed, interleaved, timed
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.ort.integer_sums import largest_inputs, saturating_kinds, saturating_model

# (weights, activations) that run on every provider; weights of fewer bits on the kernels of int8
PRECISIONS = (
    ("fp32", "fp32"),
    *((weights, "int8") for weights in ("int8", "int8-exact", "int6", "int4", "int2")),
)
HALF_PROVIDERS = ("CUDA", "TensorRT", "NvTensorRTRTX", "ROCM", "MIGraphX", "Dml", "CoreML", "QNN", "OpenVINO")
OPS = (
    *("stem", "conv", "linear", "add", "add_converted", "pool", "maxpool", "avgpool"),
    *("quantize", "dequantize", "mbconv"),
)
CPU = "CPUExecutionProvider"
EXACT_SUMS = "session.x64quantprecision"  # the session option that keeps integer sums from saturating
OPEN_BATCH = 100  # images at a time through a model that takes any number


def open_session(
    model: bytes | Path,
    *,
    threads: int = 1,
    provider: str = CPU,
    optimized: Path | None = None,
    exact_sums: bool = False,
) -> onnxruntime.InferenceSession:
    """Return a session with the options that every Trilobit measurement and check uses.

    Args:
        optimized: receives the optimised graph.
        exact_sums: compute integer layers exactly where this machine's kernels saturate, 1.3 to 1.5 times
            slower. Elsewhere the option is left out: it would only cost time (2.4 times with VNNI).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if exact_sums and integer_sums(provider) == "saturating":
        options.add_session_config_entry(EXACT_SUMS, "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, [provider])


def engine_version() -> str:
    """Return the version of the ONNX Runtime that is installed."""
    return str(onnxruntime.__version__)


def takes_bytes(session: onnxruntime.InferenceSession) -> bool:
    """Whether the model reads uint8 pixels (batch, h, w, c), not a normalised image."""
    return bool(session.get_inputs()[0].type == "tensor(uint8)")


def outputs(session: onnxruntime.InferenceSession, images: NDArray[Any]) -> NDArray[np.float32]:
    """(n, classes) logits of images (n, ...) as the model takes them, in batches of its own size."""
    image = session.get_inputs()[0]
    batch = image.shape[0] if isinstance(image.shape[0], int) else OPEN_BATCH
    short = -len(images) % batch
    padded = np.concatenate([images, np.zeros((short, *images.shape[1:]), images.dtype)])
    logits = [
        session.run(None, {image.name: np.ascontiguousarray(padded[start : start + batch])})[0]
        for start in range(0, len(padded), batch)
    ]
    return np.asarray(np.concatenate(logits)[: len(images)], np.float32)


def prepared(session: onnxruntime.InferenceSession, batch: int) -> Callable[[], None]:
    """A function that runs the model once on preallocated random images; `batch` of them where any number is
    allowed.
    """
    image = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else batch for size in image.shape]
    rng = np.random.default_rng(0)
    seen = takes_bytes(session)
    pixels = rng.integers(0, 256, shape, np.uint8) if seen else rng.standard_normal(shape, np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input(image.name, pixels)
    binding.bind_output(session.get_outputs()[0].name)
    return lambda: session.run_with_iobinding(binding)


@cache
def saturating_kernels(provider: str) -> tuple[str, ...] | None:
    """Return the kinds of integer kernels, of `ort_sums.KERNELS`, that saturate here; None where the
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


class OrtBackend:
    """Measures with ONNX Runtime on this machine.

    Args:
        provider: an execution provider, with or without its `ExecutionProvider` suffix.
        threads: threads of one inference.
        batch: images of one inference; the models that jobs give must have it.
        exact_sums: keep integer sums from saturating, see `open_session`.

    Raises:
        TrilobitError: the provider is not installed.
    """

    def __init__(
        self, *, provider: str = "CPU", threads: int = 1, batch: int = 1, exact_sums: bool = False
    ) -> None:
        full = provider if provider.endswith("ExecutionProvider") else f"{provider}ExecutionProvider"
        installed = onnxruntime.get_available_providers()
        if full not in installed:
            known = ", ".join(p.removesuffix("ExecutionProvider") for p in installed)
            raise TrilobitError(f"execution provider {provider!r} is not installed; installed: {known}")
        self._provider, self._threads, self._batch = full, threads, batch
        self._exact_sums = exact_sums
        self._short = full.removesuffix("ExecutionProvider")
        self._pulse: Pulse | None = None  # found on the core that is measured on
        self._meter = find_meter()

    def describe(self) -> DeviceInfo:
        batch = f"-b{self._batch}" if self._batch > 1 else ""
        return DeviceInfo(
            name=f"ort-{self._short.lower()}-{self._threads}t{batch}",
            cpu=cpu_model(),
            engine="onnxruntime",
            engine_version=onnxruntime.__version__,
            provider=self._provider,
            threads=self._threads,
            batch=self._batch,
            energy=self._meter.describe() if isinstance(self._meter, Meter) else self._meter,
            integer_sums=integer_sums(self._provider),
        )

    def supports(self, layer: LayerSpec) -> bool:
        half = (("fp16", "fp16"),) if self._short in HALF_PROVIDERS else ()
        known = (*PRECISIONS, *half)
        if layer.weighted or layer.op == "mbconv":
            return layer.op in OPS and (layer.weight_format, layer.activation_format) in known
        return layer.op in OPS and layer.activation_format in {activation for _, activation in known}

    def why_not(self, layer: LayerSpec) -> str:
        pair = f"{layer.weight_format} weights on {layer.activation_format} activations"
        narrow = layer.activation_format in ("int6", "int4")
        reason = "; its integer kernels read activations of 8 bits" if narrow else ""
        return f"onnxruntime has no {layer.op} of {pair} on {self._short}{reason}"

    def probe(self, layer: LayerSpec) -> Probe:
        return in_context(layer)

    @property
    def timed(self) -> bool:
        return True

    @property
    def parallel(self) -> int:
        return 1

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        runs = [self._prepare(job, plan) for job in jobs]
        ready = [sessions for sessions in runs if not isinstance(sessions, str)]
        contexts = [job.context for job, run in zip(jobs, runs, strict=True) if not isinstance(run, str)]
        with pinned(plan.core):
            self._pulse = self._pulse or Pulse()
            samples = interleaved(ready, plan, self._pulse, contexts)
            firsts = [sessions[0] for sessions in ready]
            measured = map(Measurement.of, samples, joules_of(firsts, self._meter, seconds=plan.energy_s))
        return [Measurement(error=run) if isinstance(run, str) else next(measured) for run in runs]

    def _prepare(self, job: Job, plan: MeasurePlan) -> list[Timed] | str:
        """The workload in each of the plan's sessions, on preallocated tensors; or the reason why not."""
        try:
            model, exact = job.onnx(), self._exact_sums
            sessions = [
                open_session(model, threads=self._threads, provider=self._provider, exact_sums=exact)
                for _ in range(plan.sessions)
            ]
        except Exception as error:  # whatever the engine rejects becomes a row with its error
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if (started := sessions[0].get_providers()[0]) != self._provider:
            return f"{self._short} could not start; ONNX Runtime fell back to {started}"
        return [timed(prepared(session, self._batch), plan) for session in sessions]

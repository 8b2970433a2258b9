"""What is asked of an ONNX file of others in a process of its own (`nas.checks.confined`), since loading it
can already take for ever, or all memory. Imports no torch, so that the process starts quickly.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hw_profiles.documents import parse
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.whole_networks import measure_within_budget
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.onnx_file import needs_exact_sums
from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.runtime import Artifact, CountsMemory, Executable, Job, Runtime, single_output
from nas.checks.engine import integer_count

OWN_DOMAINS = ("", "ai.onnx")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FileFacts:
    """What an ONNX file says of itself, and how long it takes.

    Attributes:
        metadata: its own entries.
        opset: of ONNX's own operators; 0 where it names none.
        shape: of its input, None where any number is allowed.
        dtype: of its input.
        integer_kernels: that the runtime runs for it.
        exact_sums: whether its integer sums must not saturate.
        run_s: seconds of one of the examples that it was asked about; 0 where it takes no such.
    """

    metadata: Mapping[str, str]
    opset: int
    shape: tuple[int | None, ...]
    dtype: str
    integer_kernels: int
    exact_sums: bool
    run_s: float


def examine_file(request: Mapping[str, Any], images: NDArray[Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `FileFacts` of the file at `path`, run by `device`, and its logits of examples if it takes
    such.

    Raises:
        ValueError: it has other inputs than one, or keeps weights outside.
    """
    model = Path(request["path"]).read_bytes()
    proto = onnx.load_from_string(model)
    if keeps_weights_outside(proto):
        raise ValueError("keeps weights in other files; a network of ours is whole")
    runtime = runtime_of(request)
    executable = runtime.compile(Artifact(content_of(request), exact_sums=True))
    if len(executable.inputs) != 1 or len(executable.outputs) != 1:
        raise ValueError("has several inputs or outputs; a network has one of each")
    [image] = executable.inputs
    facts = FileFacts(
        metadata={entry.key: entry.value for entry in proto.metadata_props},
        opset=opset_of(proto),
        shape=image.shape,
        dtype=image.dtype,
        integer_kernels=integer_count(executable.kernels(), runtime),
        exact_sums=needs_exact_sums(model),
        run_s=0.0,
    )
    if image.shape[1:] != images.shape[1:] or facts.dtype != str(images.dtype):
        return asdict(facts), {}
    start = time.perf_counter()
    logits = _logits(executable, images)
    return {**asdict(facts), "run_s": (time.perf_counter() - start) / len(images)}, {"logits": logits}


def file_logits(request: Mapping[str, Any], images: NDArray[Any]) -> tuple[None, Arrays]:
    """Return the logits of images as the file at `path` takes them, run by `device`."""
    executable = runtime_of(request).compile(Artifact(content_of(request), exact_sums=True))
    return None, {"logits": _logits(executable, images)}


def file_latency(request: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `Measurement` of the file at `path` on `device` by `plan`."""
    model = content_of(request)
    # only the file is run
    job = Job(single(map_layer("pool", (1, 1, 1), 1)), lambda: model, exact_sums=True)
    [measured] = measure_within_budget(open_request(request), [job], parse(MeasurePlan, request["plan"]))
    return asdict(measured), {}


def file_memory(request: Mapping[str, Any]) -> tuple[dict[str, float], Arrays]:
    """Return what the file at `path` needs on a microcontroller, counted by `device`, by name of the cost."""
    runtime = runtime_of(request)
    assert isinstance(runtime, CountsMemory)
    arena_bytes, flash_bytes = runtime.memory_bytes(content_of(request))
    return {"arena": float(arena_bytes), "flash": float(flash_bytes)}, {}


def measurement_of(document: Any) -> Measurement:
    """Return what `file_latency` gave.

    Raises:
        MismatchError: it is none.
    """
    return parse(Measurement, document)


def open_request(request: Mapping[str, Any]) -> Device:
    """Return the device that a request names, with its options."""
    return choose(request["device"]["name"], request["device"]["options"]).open()


def runtime_of(request: Mapping[str, Any]) -> Runtime:
    runtime = open_request(request).runtime
    assert runtime is not None
    return runtime


def content_of(request: Mapping[str, Any]) -> bytes:
    """Return the file that is run: the one at `path`, or what its engine `runs` in its place."""
    return Path(request.get("runs", request["path"])).read_bytes()


def _logits(executable: Executable, images: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(single_output(executable, images), np.float32)


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators; 0 where it names none."""
    return max((opset.version for opset in proto.opset_import if opset.domain in OWN_DOMAINS), default=0)


def keeps_weights_outside(proto: onnx.ModelProto) -> bool:
    """Return whether a file is not whole without others."""
    return any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(proto.graph))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a graph and of those inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)

"""What an ONNX file of others is and does: run in a process of its own (`nas.checks.confined`), since
loading it can already take for ever, or all memory. Imports no torch, so that the process starts quickly.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hw_profiles.documents import parse
from hw_profiles.graph.layer import LayerSpec
from hw_profiles.graph.workload import single
from hw_profiles.measure.backend import Job
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.profiler import measure_patiently
from hw_profiles.runtimes.ort.runtime import OrtBackend, open_session, outputs, takes_bytes
from nas.checks.sums import needs_exact_sums, open_exactly

INTEGER_OPS = (
    *("QLinearConv", "QLinearAdd", "QLinearMul", "QGemm", "QLinearGlobalAveragePool", "QLinearAveragePool"),
)
OWN_DOMAINS = ("", "ai.onnx")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FileFacts:
    """What an ONNX file says of itself, and how long it takes.

    Attributes:
        metadata: its own entries.
        opset: of ONNX's own operators; 0 where it names none.
        shape: of its input, None where any number is allowed.
        pixels: whether that is uint8.
        integer_kernels: in the graph that ONNX Runtime makes of it.
        exact_sums: whether its integer sums must not saturate.
        run_s: seconds of one of the images that it was asked about; 0 where it takes no such.
    """

    metadata: Mapping[str, str]
    opset: int
    shape: tuple[int | None, ...]
    pixels: bool
    integer_kernels: int
    exact_sums: bool
    run_s: float


def examine_file(request: Mapping[str, Any], images: NDArray[Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `FileFacts` of the file at `path`, and its logits of images where it takes such.

    Raises:
        ValueError: it has other inputs than one image, or keeps weights outside.
    """
    model = Path(request["path"]).read_bytes()
    proto = onnx.load_from_string(model)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(proto.graph)):
        raise ValueError("keeps weights in other files; a network of ours is whole")
    session = open_exactly(model)
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        raise ValueError("has several inputs or outputs; a network has one of each")
    shape = tuple(size if isinstance(size, int) else None for size in session.get_inputs()[0].shape)
    facts = FileFacts(
        metadata=session.get_modelmeta().custom_metadata_map,
        opset=max((one.version for one in proto.opset_import if one.domain in OWN_DOMAINS), default=0),
        shape=shape,
        pixels=takes_bytes(session),
        integer_kernels=sum(optimised_ops(model)[op] for op in INTEGER_OPS),
        exact_sums=needs_exact_sums(model),
        run_s=0.0,
    )
    if shape[1:] != images.shape[1:] or facts.pixels != (images.dtype == np.uint8):
        return asdict(facts), {}
    start = time.perf_counter()
    logits = outputs(session, images)
    return {**asdict(facts), "run_s": (time.perf_counter() - start) / len(images)}, {"logits": logits}


def file_logits(request: Mapping[str, Any], images: NDArray[Any]) -> tuple[None, Arrays]:
    """Return the logits of images as the file at `path` takes them."""
    return None, {"logits": outputs(open_exactly(Path(request["path"]).read_bytes()), images)}


def file_latency(request: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `Measurement` of the file at `path` with `provider`, `threads`, `batch` and `plan`."""
    model = Path(request["path"]).read_bytes()
    setting = {name: request[name] for name in ("provider", "threads", "batch")}
    backend = OrtBackend(**setting, exact_sums=needs_exact_sums(model))
    job = Job(single(LayerSpec("pool", (1, 1, 1), 1)), lambda: model)  # only the file is run
    [measured] = measure_patiently(backend, [job], parse(MeasurePlan, request["plan"]))
    return asdict(measured), {}


def measurement_of(document: Any) -> Measurement:
    """Return what `file_latency` gave.

    Raises:
        MismatchError: it is none.
    """
    return parse(Measurement, document)


def optimised_ops(model: bytes) -> Counter[str]:
    """Operators of the graph that ONNX Runtime runs after optimisation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        open_session(model, optimized=path)
        counts = Counter(node.op_type for node in onnx.load(path).graph.node)
    counts["Conv"] += counts.pop("FusedConv", 0)
    return counts


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a graph and of those inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)

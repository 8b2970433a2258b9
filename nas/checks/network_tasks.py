"""What is asked of somebody's network in a process of its own (`nas.checks.confined`): an ONNX file with any
number of inputs and outputs. Imports no torch.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from hw_profiles.documents import parse
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.onnx_file import needs_exact_sums
from hw_profiles.runtimes.runtime import Artifact
from nas.checks.engine import integer_count
from nas.checks.examples import Array, ExampleAnswers, ExampleInput, answers, made_up
from nas.checks.file_tasks import (
    Arrays,
    content_of,
    keeps_weights_outside,
    open_request,
    opset_of,
    runtime_of,
)
from nas.checks.tensor import Tensor


@dataclass(frozen=True)
class NetworkFacts:
    """What an ONNX file says of itself, and how long it takes.

    Attributes:
        metadata: its own entries.
        opset: of ONNX's own operators; 0 where it names none.
        domains: of other operators that it needs.
        inputs, outputs: what it reads and gives.
        integer_kernels: that the runtime runs for it.
        exact_sums: whether its integer sums must not saturate.
        run_s: seconds of one of the examples that it was asked about; 0 where it was asked about none.
        answers: what it gives for these.
    """

    metadata: Mapping[str, str]
    opset: int
    domains: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    integer_kernels: int
    exact_sums: bool
    run_s: float
    answers: ExampleAnswers | None = None


def examine_network(request: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `NetworkFacts` of the file at `path`, run by `device` on the first `examples` that its
    `inputs` are made up of; on none where these are not its inputs.

    Raises:
        ValueError: it keeps weights outside.
    """
    model = Path(request["path"]).read_bytes()
    proto = onnx.load_from_string(model)
    if keeps_weights_outside(proto):
        raise ValueError("keeps weights in other files; a network of ours is whole")
    runtime = runtime_of(request)
    stated = parse(tuple[ExampleInput, ...], request["inputs"])
    its_own = {(t.name, t.dtype) for t in tensors(proto, "input")} == {(s.name, s.dtype) for s in stated}
    example = made_up(stated, 0) if stated and its_own else None
    executable = runtime.compile(Artifact(content_of(request), exact_sums=True, example=example))
    start, given, asked = time.perf_counter(), None, request["examples"]
    if asked and its_own:
        given = answers(executable.run, stated, asked)
    run_s = (time.perf_counter() - start) / max(asked, 1)
    facts = NetworkFacts(
        metadata={entry.key: entry.value for entry in proto.metadata_props},
        opset=opset_of(proto),
        domains=tuple(sorted({o.domain for o in proto.opset_import} & _used_domains(proto.graph))),
        inputs=tensors(proto, "input"),
        outputs=tensors(proto, "output"),
        integer_kernels=integer_count(executable.kernels(), runtime),
        exact_sums=needs_exact_sums(model),
        run_s=run_s,
        answers=given,
    )
    return asdict(facts), {}


def network_outputs(request: Mapping[str, Any], **arrays: Array) -> tuple[list[str], Arrays]:
    """Return what the file at `path`, run by `device`, gives for examples (n, ...) of each of `names`, one at
    a time: the names of its outputs, and their arrays as `output_0` and so on.

    Raises:
        ValueError: an output's shape is another for each example.
    """
    inputs = {name: arrays[f"input_{position}"] for position, name in enumerate(request["names"])}
    artifact = Artifact(content_of(request), exact_sums=True, example=_example(inputs, 0))
    executable = runtime_of(request).compile(artifact)
    rows = [executable.run(_example(inputs, row)) for row in range(len(next(iter(inputs.values()))))]
    names = [info.name for info in executable.outputs]
    return names, {f"output_{p}": np.stack([row[name] for row in rows]) for p, name in enumerate(names)}


def _example(inputs: Mapping[str, Array], row: int) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array[row]) for name, array in inputs.items()}


def network_latency(request: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `Measurement` of the file at `path` on `device` by `plan`, on the first example that its
    `inputs` are made up of.
    """
    device, plan = open_request(request), parse(MeasurePlan, request["plan"])
    example = made_up(parse(tuple[ExampleInput, ...], request["inputs"]), 0) or None
    artifact = Artifact(content_of(request), exact_sums=True, example=example)
    assert isinstance(device, MeasuredDevice)  # it runs ONNX files
    [measured] = device.transport.sample(device.runtime, [artifact], [None], plan)
    return asdict(measured), {}


def tensors(proto: onnx.ModelProto, which: str) -> tuple[Tensor, ...]:
    """Return the `input`s or `output`s of a file; of the inputs those that are not stored in it."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return tuple(_tensor(value) for value in getattr(proto.graph, which) if value.name not in stored)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    sizes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
    return Tensor(value.name, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)), sizes)


def _used_domains(graph: onnx.GraphProto) -> set[str]:
    return {node.domain for node in graph.node} - {"", "ai.onnx"}

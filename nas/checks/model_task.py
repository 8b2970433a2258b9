"""What is asked of somebody's trained model in a process of its own (`nas.checks.confined`): reading it,
folding its constants and running it can already take for ever, or all memory. Imports no torch.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.runtime import Artifact, Executable, Runtime
from supernet.imported.fixing import deciding_inputs
from supernet.imported.import_onnx import describe
from supernet.imported.made_up import Feeds, compared, made_up_feeds
from supernet.imported.onnx_file import ONNX_DOMAINS, graph_of, read_onnx, stored_tensors
from supernet.imported.open_dimensions import OpenDimensionsError
from supernet.imported.prepare import prepare

Arrays = dict[str, NDArray[Any]]
TIMED_S, MOST_RUNS = 0.3, 50  # for one inference


@dataclass(frozen=True)
class TensorFacts:
    """An input or an output.

    Attributes:
        name: in the file.
        shape: sizes, or the names of open dimensions; empty of one that has no name.
        dtype: numpy's name of its element type; empty where that is not said.
    """

    name: str
    shape: tuple[str, ...]
    dtype: str


@dataclass(frozen=True)
class Outline:
    """What somebody's file says of itself.

    Attributes:
        opset: of ONNX's own operators; 0 where it names none.
        producer: what wrote it.
        inputs, outputs: what it reads and gives.
        operations: how many of each.
        size_bytes: of the file, with the weights that it keeps in others.
        request: what must be said of open dimensions before it can be counted or run; empty for nothing.
        halves: stored tensors of 16-bit real numbers.
        deciding: inputs that decide which branch of an `If` runs, with a value that they may have.
    """

    opset: int
    producer: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    operations: Mapping[str, int]
    size_bytes: int
    request: str
    halves: int = 0
    deciding: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFacts:
    """What running somebody's network once showed.

    Attributes:
        operations: how many of each are left when it is prepared.
        open_s: seconds until a runtime has it ready.
        run_s: seconds of one inference in fp32, prepared; 0 where it could not be run on made-up numbers.
        failed: why it could not be run on these; empty where it could.
        not_finite: outputs with other values than numbers, of made-up inputs.
    """

    operations: Mapping[str, int]
    open_s: float
    run_s: float
    failed: str
    not_finite: tuple[str, ...]


def prepare_model(request: Mapping[str, Any], **feeds: NDArray[Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `Outline` and the `ModelFacts` of the file at `path`, all of its `original` bytes, and the
    `content` that `supernet.imported.prepare` makes of it; or why that is `refused`.

    Args:
        request: `path`; `shapes` by input; `fixed`, values by input; `device`, its name and options;
            `inputs`, names of what `feeds` has as `feed0`, `feed1`, ...
        feeds: an example of what it reads.
    """
    given = {name: feeds[f"feed{i}"] for i, name in enumerate(request["inputs"])}
    shapes = {name: tuple(shape) for name, shape in request["shapes"].items()}
    fixed = request["fixed"]
    outline: Outline | None = None
    try:
        proto = read_onnx(Path(request["path"]))
        outline = _outline(proto)
        content = prepare(proto, shapes, given or None, fixed)
        model = describe(content, shapes, given or None, fixed)
    except OpenDimensionsError as error:
        assert outline is not None
        return {"outline": asdict(replace(outline, request=str(error)))}, {}
    except TrilobitError as error:
        return {"refused": str(error)}, {}
    inputs = {name: model.shapes[name] for name in model.inputs}
    feeds = given or made_up_feeds(graph_of(read_onnx(content)), inputs, fixed)
    facts = _facts(content, _runtime(request), feeds)
    files = {"content": content, "original": proto.SerializeToString()}
    arrays = {name: np.frombuffer(file, np.uint8) for name, file in files.items()}
    return {"outline": asdict(outline), "facts": asdict(facts)}, arrays


def _outline(proto: onnx.ModelProto) -> Outline:
    stored = {tensor.name for tensor in proto.graph.initializer}
    return Outline(
        opset=max((o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS), default=0),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        inputs=tuple(_tensor(value) for value in proto.graph.input if value.name not in stored),
        outputs=tuple(map(_tensor, proto.graph.output)),
        operations=_operations(proto),
        size_bytes=proto.ByteSize(),
        request="",
        halves=sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in stored_tensors(proto.graph)),
        deciding=_deciding(proto),
    )


def _deciding(proto: onnx.ModelProto) -> dict[str, int]:
    model = graph_of(proto)
    names = deciding_inputs(model)
    return {str(value.name): compared(value) for value in model.graph.inputs if value.name in names}


def _operations(proto: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in proto.graph.node).most_common())


def _tensor(value: onnx.ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    dims = tuple(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param for dim in kind.shape.dim)
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else ""
    return TensorFacts(value.name, dims, dtype)


def _runtime(request: Mapping[str, Any]) -> Runtime:
    runtime = choose(request["device"]["name"], request["device"]["options"]).open().runtime
    assert runtime is not None
    return runtime


def _facts(content: bytes, runtime: Runtime, feeds: Feeds) -> ModelFacts:
    open_s = run_s = 0.0
    failed = ""
    not_finite: tuple[str, ...] = ()
    try:
        start = time.perf_counter()
        executable = runtime.compile(Artifact(content))
        open_s = time.perf_counter() - start
        not_finite = _not_finite(executable, feeds)
        run_s = _run_s(executable, feeds)
    except Exception as error:  # whatever the engine rejects
        failed = next(iter(str(error).strip().splitlines()), type(error).__name__)
    operations = _operations(onnx.load_model_from_string(content))
    return ModelFacts(operations, open_s, run_s, failed, not_finite)


def _not_finite(executable: Executable, feeds: Feeds) -> tuple[str, ...]:
    outputs = executable.run(feeds)
    return tuple(
        name
        for name, array in outputs.items()
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all()
    )


def _run_s(executable: Executable, feeds: Feeds) -> float:
    """Return the least seconds of one inference."""
    begin, least = time.perf_counter(), float("inf")
    for _ in range(MOST_RUNS):
        start = time.perf_counter()
        executable.run(feeds)
        end = time.perf_counter()
        least = min(least, end - start)
        if end - begin > TIMED_S:
            break
    return least

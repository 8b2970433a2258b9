"""What is asked of somebody's trained model in a process of its own (`nas.checks.confined`): reading it,
folding its constants and running it can already take for ever, or all memory. Imports no torch.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.runtime import Artifact, Executable, Runtime
from supernet.imported.import_onnx import describe
from supernet.imported.made_up import Feeds, made_up_feeds
from supernet.imported.onnx_file import ONNX_DOMAINS, read_onnx
from supernet.imported.prepare import prepare

Arrays = dict[str, NDArray[Any]]
TIMED_S, MOST_RUNS = 0.3, 50  # for one inference


@dataclass(frozen=True)
class ModelFacts:
    """What somebody's file says, and what running it once showed.

    Attributes:
        opset: of ONNX's own operators; 0 where it names none.
        producer: what wrote it.
        operations: how many of each, of graphs inside too.
        size_bytes: of the file, with the weights that it keeps in others.
        open_s: seconds until a runtime has it ready.
        run_s: seconds of one inference in fp32, prepared; 0 where it could not be run on made-up numbers.
        failed: why it could not be run on these; empty where it could.
        not_finite: outputs with other values than numbers, of made-up inputs.
    """

    opset: int
    producer: str
    operations: Mapping[str, int]
    size_bytes: int
    open_s: float
    run_s: float
    failed: str
    not_finite: tuple[str, ...]


def prepare_model(request: Mapping[str, Any], **feeds: NDArray[Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the `ModelFacts` of the file at `path`, all of its `original` bytes, and the `content` that
    `supernet.imported.prepare` makes of it; or why that is `refused`.

    Args:
        request: `path`; `shapes` by input; `device`, its name and options; `inputs`, names of what `feeds`
            has as `feed0`, `feed1`, ...
        feeds: an example of what it reads.
    """
    given = {name: feeds[f"feed{i}"] for i, name in enumerate(request["inputs"])}
    shapes = {name: tuple(shape) for name, shape in request["shapes"].items()}
    try:
        content = prepare(Path(request["path"]), shapes, given or None)
        model = describe(content, shapes, given or None)
    except TrilobitError as error:
        return {"refused": str(error)}, {}
    inputs = {name: model.shapes[name] for name in model.inputs}
    proto = read_onnx(Path(request["path"]))
    facts = _facts(proto, content, _runtime(request), given or made_up_feeds(inputs, model.dtypes))
    files = {"content": content, "original": proto.SerializeToString()}
    return {"facts": asdict(facts)}, {name: np.frombuffer(file, np.uint8) for name, file in files.items()}


def _runtime(request: Mapping[str, Any]) -> Runtime:
    runtime = choose(request["device"]["name"], request["device"]["options"]).open().runtime
    assert runtime is not None
    return runtime


def _facts(proto: onnx.ModelProto, content: bytes, runtime: Runtime, feeds: Feeds) -> ModelFacts:
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
    return ModelFacts(
        opset=max((o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS), default=0),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        operations=dict(Counter(node.op_type for node in proto.graph.node).most_common()),
        size_bytes=proto.ByteSize(),
        open_s=open_s,
        run_s=run_s,
        failed=failed,
        not_finite=not_finite,
    )


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

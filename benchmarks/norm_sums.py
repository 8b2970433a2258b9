"""What ONNX Runtime's fusion of a sum with the layer norm behind it costs on this machine, and what writing
the sum as `Sum` of two, which is never fused, buys: the two nodes alone, and encoders with random weights.

Files differ in nothing else. All take turns on one pinned core and one thread; ratios are of paired windows.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from harness import Row, interquartile_range, one_core, parse_arguments, report
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.measure.interleave import ReferenceWorkload, Timed, interleaved
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import Family, load_family

SHAPES = ((1, 256), (8, 256), (64, 64), (128, 96), (128, 256), (128, 768))
SPACES: Mapping[str, str] = {"token-encoder": "256 bytes of text", "bert-base": "BERT-base"}
FORMATS, ENDS = ("fp32", "int8"), ("smallest", "largest")
VOCABULARY, CLASSES = 256, 2


def normed_sum(rows: int, width: int) -> bytes:
    """Return a file that adds two tensors and normalises what comes out."""
    shape = (1, rows, width)
    x, y, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y", "out"))
    nodes = [
        helper.make_node("Sum", ["x", "y"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "shift"], ["out"], axis=-1),
    ]
    stored = [
        numpy_helper.from_array(np.ones(width, np.float32), "scale"),
        numpy_helper.from_array(np.zeros(width, np.float32), "shift"),
    ]
    graph = helper.make_graph(nodes, "normed_sum", [x, y], [out], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def encoder(family: Family, end: str, number_format: str) -> bytes:
    """Return an end of a space of encoders with random weights."""
    work = family.workload(family.extreme(end, number_format))
    return emit(random_network(work, rng=np.random.default_rng(0)))


def usual(content: bytes) -> bytes:
    """Return a file with its sums written as everyone does."""
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        if node.op_type == "Sum":
            node.op_type = "Add"
    changed: bytes = model.SerializeToString()
    return changed


def timed_of(content: bytes, plan: MeasurePlan) -> Timed:
    """Return a file ready to be timed."""
    return host_runtime().compile(Artifact(content)).timed(plan.clock)


def files(quick: bool) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a file with sums of its own kind, one by one: large ones are not kept."""
    for rows, width in SHAPES[:2] if quick else SHAPES:
        yield f"sum and norm, {rows} x {width}", normed_sum(rows, width)
    for space, said in list(SPACES.items())[: 1 if quick else None]:
        family = load_family(space, in_channels=VOCABULARY, classes=CLASSES)
        for number_format in FORMATS:
            for end in ENDS:
                yield f"{said}, {end}, {number_format}", encoder(family, end, number_format)


def rows_of(name: str, content: bytes, plan: MeasurePlan, reference: ReferenceWorkload) -> list[Row]:
    """Return the latency of a file beside that of the usual one, and their ratio by pairs of windows."""
    runs = [[timed_of(each, plan)] for each in (content, usual(content))]
    measured = interleaved(runs, plan, reference, ["both"] * len(runs))
    apart, fused = (1e6 * np.array(each.seconds) for each in measured)
    middle, ratio = float(np.median(apart)), fused / apart
    peers = {"fused by ONNX Runtime": float(np.median(fused))}
    return [
        Row(name, "latency", "us", "lower", middle, interquartile_range(apart), peers),
        Row(name, "as fast", "x", "higher", float(np.median(ratio)), interquartile_range(ratio), {}, 1.0),
    ]


def main() -> None:
    """Print the table, write the JSON."""
    arguments = parse_arguments(__doc__, seeds=40)
    with one_core() as core:
        rounds = 5 if arguments.quick else arguments.seeds
        plan, reference = MeasurePlan(core=core, rounds=rounds, clock="wall"), ReferenceWorkload()
        rows = [
            row for name, content in files(arguments.quick) for row in rows_of(name, content, plan, reference)
        ]
    report("norm_sums", rows, arguments.json)


if __name__ == "__main__":
    main()

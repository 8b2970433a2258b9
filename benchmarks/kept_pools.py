"""What it costs on this machine that ONNX Runtime quantizes in front of a max pool in real numbers, and what
a `Sum` of one behind the pool, which nothing is moved past, buys: the largest network of `cifar-pooled` with
random weights in int8, but for one convolution before a pool.

Files differ in nothing else. All take turns on one pinned core and one thread; ratios are of paired windows.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from harness import Row, interquartile_range, one_core, parse_arguments, report
from norm_sums import timed_of

from hw_profiles.measure.interleave import ReferenceWorkload, interleaved
from hw_profiles.measure.measurement import MeasurePlan
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family
from supernet.families.staged import StagedFamily

SPACE, STAGES = "cifar-pooled", 3


def mixed(family: StagedFamily, stage: int) -> bytes:
    """Return the largest network in int8, but for the convolution before the pool of a stage."""
    space, genes = family.space(), np.array(family.extreme("largest", "int8").genes, np.int16)
    column = space.columns[f"s{stage}.b0.conv1.format"]
    genes[column] = space.choices[column].options.index("fp32")
    return emit(random_network(family.workload(space.candidate(genes)), rng=np.random.default_rng(0)))


def usual(content: bytes) -> bytes:
    """Return a file without sums of one."""
    model = onnx.load_from_string(content)
    sources = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Sum" and len(n.input) == 1}
    left = [node for node in model.graph.node if node.output[0] not in sources]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in left]
    for node in kept:
        node.input[:] = [sources.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    changed: bytes = model.SerializeToString()
    return changed


def rows(stages: range, plan: MeasurePlan) -> Iterator[Row]:
    """Yield the latency of each network beside that of the usual file, and their ratio by pairs."""
    family, reference = load_family(SPACE, in_channels=3, classes=10), ReferenceWorkload()
    assert isinstance(family, StagedFamily)
    for stage in stages:
        content = mixed(family, stage)
        runs = [[timed_of(each, plan)] for each in (content, usual(content))]
        behind, before = (
            1e6 * np.array(each.seconds) for each in interleaved(runs, plan, reference, ["both"] * len(runs))
        )
        name = f"{SPACE}, largest, int8 but for the convolution before the pool of stage {stage}"
        peers = {"quantized before the pool": float(np.median(before))}
        middle, ratio = float(np.median(behind)), before / behind
        yield Row(name, "latency", "us", "lower", middle, interquartile_range(behind), peers)
        yield Row(
            name, "as fast", "x", "higher", float(np.median(ratio)), interquartile_range(ratio), {}, 1.0
        )


def main() -> None:
    """Print the table, write the JSON."""
    arguments = parse_arguments(__doc__, seeds=40)
    with one_core() as core:
        rounds = 5 if arguments.quick else arguments.seeds
        plan = MeasurePlan(core=core, rounds=rounds, clock="wall")
        measured = list(rows(range(1 if arguments.quick else STAGES), plan))
    report("kept_pools", measured, arguments.json)


if __name__ == "__main__":
    main()

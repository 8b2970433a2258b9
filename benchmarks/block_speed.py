"""What a million multiply-adds costs, by block type and place in a network: ONNX Runtime in int8 and fp32.

Stages of two blocks with random weights, every block type of staged spaces where `cifar-fused` has its three
stages (maps of 16, 8 and 4 pixels); all files in turns on one pinned core. Then networks of `cifar-fused`
itself in int8: its extremes and random ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from harness import Row, interquartile_range, one_core, parse_arguments, report

from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.counts import macs
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.interleave import ReferenceWorkload, Timed, interleaved
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family
from supernet.families.staged import Sizes, Stage, append_block

FORMATS = ("int8", "fp32")
PERCENTS = {"inverted": 400, "fused": 100, "fused-relu": 100, "bottleneck": 100, "separable": 100}
RANDOM = 24


@dataclass(frozen=True)
class Place:
    """Where a stage is: channels and map that it reads, and its width."""

    in_width: int
    in_size: int
    width: int

    def __str__(self) -> str:
        return f"{self.in_size // 2}x{self.in_size // 2}, {self.in_width} to {self.width} channels"


PLACES = (
    Place(24, 32, 32),
    Place(24, 32, 64),
    Place(64, 16, 64),
    Place(64, 16, 128),
    Place(128, 8, 128),
    Place(128, 8, 256),
)


def stage_of(place: Place, block: str, fmt: str) -> Workload:
    """Return two blocks, the first with a stride of 2."""
    stage = Stage(block, (place.width,), 2, (2,), (3,), (PERCENTS[block],))
    net = GraphBuilder((place.in_width, place.in_size, place.in_size), fmt)
    sizes = Sizes(place.width, place.width * PERCENTS[block] // 100, 3)
    x = net.input
    for b in range(2):
        x = append_block(net, x, f"b{b}", stage, b, sizes, [fmt] * len(stage.type.parts))
    return net.build()


def timed_of(work: Workload, plan: MeasurePlan) -> Timed:
    """Return a network with random weights, ready to be timed."""
    model = emit(random_network(work, rng=np.random.default_rng(0)))
    return host_runtime().compile(Artifact(model)).timed(plan.clock)


def microseconds(works: Sequence[Workload], plan: MeasurePlan) -> list[np.ndarray]:
    """Return samples of each network, all in the same turns."""
    runs = [[timed_of(work, plan)] for work in works]
    return [1e6 * np.array(samples.seconds) for samples in interleaved(runs, plan, ReferenceWorkload())]


def block_rows(places: Sequence[Place], plan: MeasurePlan) -> list[Row]:
    """Return what a million multiply-adds costs in each stage of each block type."""
    works = {
        (place, block, fmt): stage_of(place, block, fmt)
        for place in places
        for block in PERCENTS
        for fmt in FORMATS
    }
    samples = dict(zip(works, microseconds(list(works.values()), plan), strict=True))
    rows = []
    for (place, block, fmt), work in works.items():
        if fmt == FORMATS[0]:
            total = sum(map(macs, work.layers)) / 1e6
            mine, whole = samples[place, block, fmt] / total, samples[place, block, "fp32"]
            peers = {"fp32": float(np.median(whole)) / total, "million multiply-adds": total}
            rows.append(_row(f"{place}: {block}", "us per million multiply-adds, int8", mine, peers))
    return rows


def space_rows(count: int, plan: MeasurePlan) -> list[Row]:
    """Return the latency of the space's networks in int8, from the fewest multiply-adds to the most."""
    family = load_family("cifar-fused", in_channels=3, classes=10, formats=("int8",))
    space = family.space()
    drawn = [space.candidate(genome) for genome in space.sample(count, rng=np.random.default_rng(0))]
    works = [family.workload(each) for each in (*family.extremes().values(), *drawn)]
    totals = [sum(map(macs, work.layers)) / 1e6 for work in works]
    named: Mapping[int, str] = {0: "smallest", 1: "largest"}
    rows = [
        _row(
            f"cifar-fused, {named.get(i, f'random {i - 2}')}",
            "latency, int8",
            each,
            {"million multiply-adds": total},
        )
        for i, (each, total) in enumerate(zip(microseconds(works, plan), totals, strict=True))
    ]
    return sorted(rows, key=lambda row: row.peers["million multiply-adds"])


def _row(task: str, metric: str, samples: np.ndarray, peers: Mapping[str, float]) -> Row:
    return Row(task, metric, "us", "lower", float(np.median(samples)), interquartile_range(samples), peers)


def main() -> None:
    """Run, print and write."""
    arguments = parse_arguments(__doc__, seeds=24)
    rounds, places, count = (4, PLACES[:1], 2) if arguments.quick else (arguments.seeds, PLACES, RANDOM)
    with one_core() as core:
        plan = MeasurePlan(rounds=rounds, waiting_s=1.0 if arguments.quick else 40.0, core=core)
        report("block_speed", [*block_rows(places, plan), *space_rows(count, plan)], arguments.json)


if __name__ == "__main__":
    main()

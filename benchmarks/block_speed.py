"""What a million multiply-adds costs, by block type and place in a network, and what `cifar-pooled` is made
of.

One more block inside a network: stages of three blocks less stages of one, random weights, ONNX Runtime,
where `cifar-pooled` has its three stages (maps of 16, 8 and 4 pixels); in int8, and in fp32 beside it. Then
stems before a convolution, in both formats, and networks of `cifar-pooled` in int8: its extremes and random
ones. All files of a kind take turns on one pinned core.
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
from supernet.families.staged import BLOCKS, Sizes, Stage, append_block

FORMATS = ("int8", "fp32")
PERCENTS = {name: 400 if name == "inverted" else 100 for name in BLOCKS}
SHALLOW, DEEP = 1, 3  # blocks
RANDOM = 24  # networks
Key = tuple[object, ...]


@dataclass(frozen=True)
class Place:
    """A map and its channels."""

    size: int
    width: int

    def __str__(self) -> str:
        return f"{self.size}x{self.size}, {self.width} channels"


MIXED = (Place(16, 48), Place(8, 96), Place(4, 192))  # where all types are compared
WIDTHS = {16: (24, 32, 40, 48, 64), 8: (64, 80, 96, 112, 128), 4: (128, 160, 192, 224, 256)}
STEMS = (16, 24, 32)


def stage_of(place: Place, block: str, depth: int, fmt: str) -> Workload:
    """Return a chain of blocks that all add what they read."""
    stage = Stage(block, (place.width,), 1, (depth,), (3,), (PERCENTS[block],))
    net = GraphBuilder((place.width, place.size, place.size), fmt)
    sizes, x = Sizes(place.width, place.width * PERCENTS[block] // 100, 3), net.input
    for b in range(1, depth + 1):
        x = append_block(net, x, f"b{b}", stage, b, sizes, [fmt] * len(stage.type.parts))
    return net.build()


def stem_of(width: int, fmt: str) -> Workload:
    """Return a stem at 32 pixels and the convolution in int8 that reads it."""
    net = GraphBuilder((3, 32, 32))
    x = net.stem("stem", net.input, width, activation="relu", precision=fmt)
    net.conv("next", x, 32, kernel=3, stride=2, activation="relu", precision="int8")
    return net.build()


def timed_of(work: Workload, plan: MeasurePlan) -> Timed:
    """Return a network with random weights, ready to be timed."""
    model = emit(random_network(work, rng=np.random.default_rng(0)))
    return host_runtime().compile(Artifact(model)).timed(plan.clock)


@dataclass(frozen=True)
class Time:
    """Microseconds: a median and its interquartile range."""

    median: float
    spread: float

    def per_block(self, shallow: "Time") -> "Time":
        """Return the time of one of the blocks that a shallower stage lacks."""
        blocks = DEEP - SHALLOW
        return Time(
            (self.median - shallow.median) / blocks, float(np.hypot(self.spread, shallow.spread)) / blocks
        )


def times(works: Mapping[Key, Workload], plan: MeasurePlan) -> dict[Key, Time]:
    """Return the time of each network, all of the same turns."""
    measured = interleaved([[timed_of(work, plan)] for work in works.values()], plan, ReferenceWorkload())
    samples = [1e6 * np.array(each.seconds) for each in measured]
    summaries = [Time(float(np.median(each)), interquartile_range(each)) for each in samples]
    return dict(zip(works, summaries, strict=True))


def million(work: Workload) -> float:
    """Return its multiply-adds in millions."""
    return sum(map(macs, work.layers)) / 1e6


def block_rows(places: Mapping[Place, Sequence[str]], plan: MeasurePlan) -> list[Row]:
    """Return what one more block takes, by place and block type."""
    works: dict[Key, Workload] = {
        (place, block, fmt, depth): stage_of(place, block, depth, fmt)
        for place, blocks in places.items()
        for block in blocks
        for fmt in FORMATS
        for depth in (SHALLOW, DEEP)
    }
    whole, rows = times(works, plan), list[Row]()
    for place, blocks in places.items():
        for block in blocks:
            int8, fp32 = (
                whole[place, block, fmt, DEEP].per_block(whole[place, block, fmt, SHALLOW]) for fmt in FORMATS
            )
            deep, shallow = (million(works[place, block, "int8", depth]) for depth in (DEEP, SHALLOW))
            peers = {"fp32": fp32.median, "million multiply-adds": (deep - shallow) / (DEEP - SHALLOW)}
            rows.append(_row(f"{place}: {block}", "one more block, int8", int8, peers))
    return rows


def stem_rows(widths: Sequence[int], plan: MeasurePlan) -> list[Row]:
    """Return what a stem takes together with the convolution behind it."""
    works: dict[Key, Workload] = {(width, fmt): stem_of(width, fmt) for width in widths for fmt in FORMATS}
    whole = times(works, plan)
    return [
        _row(
            f"stem of {width} channels, 32x32",
            "with the convolution behind it, int8",
            whole[width, "int8"],
            {"stem in fp32": whole[width, "fp32"].median},
        )
        for width in widths
    ]


def space_rows(count: int, plan: MeasurePlan) -> list[Row]:
    """Return the latency of networks of the space in int8, from the fewest multiply-adds to the most."""
    family = load_family("cifar-pooled", in_channels=3, classes=10, formats=("int8",))
    space = family.space()
    drawn = {f"random {i}": g for i, g in enumerate(space.sample(count, rng=np.random.default_rng(0)))}
    works: dict[Key, Workload] = {
        (str(name),): family.workload(each) for name, each in family.extremes().items()
    }
    works |= {(name,): family.workload(space.candidate(genome)) for name, genome in drawn.items()}
    rows = [
        _row(f"cifar-pooled, {name}", "latency, int8", each, {"million multiply-adds": million(works[name,])})
        for (name,), each in times(works, plan).items()
    ]
    return sorted(rows, key=lambda row: row.peers["million multiply-adds"])


def _row(task: str, metric: str, time: Time, peers: Mapping[str, float]) -> Row:
    return Row(task, metric, "us", "lower", time.median, time.spread, peers)


def main() -> None:
    """Run, print and write."""
    arguments = parse_arguments(__doc__, seeds=24)
    places: dict[Place, Sequence[str]] = {
        Place(size, width): ("fused-relu",) for size, widths in WIDTHS.items() for width in widths
    }
    places |= {place: tuple(PERCENTS) for place in MIXED}
    if arguments.quick:
        places = {MIXED[-1]: ("fused-relu", "inverted")}
    with one_core() as core:
        waiting_s = 1.0 if arguments.quick else 10.0
        plan = MeasurePlan(rounds=4 if arguments.quick else arguments.seeds, waiting_s=waiting_s, core=core)
        rows = [*block_rows(places, plan), *stem_rows(STEMS, plan)]
        report("block_speed", [*rows, *space_rows(2 if arguments.quick else RANDOM, plan)], arguments.json)


if __name__ == "__main__":
    main()

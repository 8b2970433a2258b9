"""Which block types suit int8 at CIFAR size: every space around the stages of a trained supernet is scored as
`nas spaces design` scores it, under three limits on each device.

Ours are the types that `cifar-pooled` has; 1 means that no other space scores more. A score judges blocks by
how well they imitate the stages of the teacher, so that it leans to what those are made of; it says nothing
of the accuracy that a trained space has. What was learned and measured stays in `--folder`.

    python benchmarks/block_types.py --source cifar10:PATH --folder DIR [--teacher CHECKPOINT]
        [--devices ort,tvm] [--seeds N] [--quick] [--json OUT]
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from all_spaces import all_spaces
from harness import Row, argument_parser, interquartile_range, one_core, report
from numpy.typing import NDArray

from nas.design.blocks import Blocks, describe
from nas.design.command import DesignRequest, open_blocks
from nas.run.design_settings import DistillationConfig, Effort
from nas.run.reporting import QUIET
from nas.search.limits import parse_limit
from nas.search.objectives import objective
from nas.search.space_design import DrawnNetworks, Spaces, random_spaces, scores_under
from supernet.families.family import load_family
from supernet.families.staged import StagedFamily

SPACE = "cifar-pooled"
TYPES = ("pooled", "basic", "fused-relu")
LIMITS = ("20%", "35%", "60%")  # of the slowest of the networks of random spaces
PRACTICE = DistillationConfig(steps=20, samples=8, images=256)
QUICK = DistillationConfig(steps=2, samples=1, images=128, judged=32)
NETWORKS, COMPARED = 20_000, 200


@dataclass(frozen=True, eq=False)
class Choice:
    """What is best under one limit.

    Attributes:
        limit_s: the limit.
        chosen: the best space in words.
        shares: (s + 1, types + 1) score of the best space that has a type in a stage, and in the last row of
            the best that has it in all, over the score of the best of all; the last column is of our types.
    """

    limit_s: float
    chosen: str
    shares: NDArray[np.float64]


def shares(
    spaces: Spaces, scores: NDArray[np.float64], types: int, stage_types: Sequence[int]
) -> NDArray[np.float64]:
    """Return `Choice.shares` by all spaces (n, 2 s), their scores (n,) and our types of the stages."""
    blocks = spaces[:, : len(stage_types), None]
    has = np.concatenate([blocks == np.arange(types), blocks == np.array(stage_types)[:, None]], axis=2)
    has = np.concatenate([has, has.all(axis=1, keepdims=True)], axis=1)  # (n, s + 1, types + 1)
    best: NDArray[np.float64] = np.where(has, scores[:, None, None], 0).max(axis=0) / scores.max()
    return best


def choices(blocks: Blocks, networks: int) -> list[Choice]:
    """Return what is best on a device under each limit."""
    blocks.distil(QUIET)
    table = blocks.table(blocks.measure(QUIET).cost_s)
    drawn = DrawnNetworks(table, networks=networks, rng=np.random.default_rng(0))
    sample = random_spaces(table, COMPARED, rng=np.random.default_rng(1))
    slowest_s, spaces = max(float(drawn(space)[1].max()) for space in sample), all_spaces(table)
    family = load_family(SPACE, in_channels=3, classes=10)
    if not isinstance(family, StagedFamily) or len(family.stages) != len(blocks.base.stages):
        raise SystemExit(f"the teacher must have as many stages as {SPACE}")
    stage_types, made = [TYPES.index(stage.block) for stage in family.stages], list[Choice]()
    for text in LIMITS:
        limit_s = parse_limit(text, objective("latency")).resolve(slowest_s)
        scores = scores_under(drawn, [limit_s])(spaces)
        chosen = "; ".join(describe(blocks.base, spaces[int(scores.argmax())]))
        made.append(Choice(limit_s, chosen, shares(spaces, scores, len(TYPES), stage_types)))
    return made


def rows_of(device: str, seeds: list[list[Choice]]) -> list[Row]:
    """Return a row for every limit and stage, and for all stages."""
    rows = []
    for limit, same in zip(LIMITS, zip(*seeds, strict=True), strict=True):
        [(chosen, times)] = Counter(choice.chosen for choice in same).most_common(1)
        limit_us = 1e6 * np.median([choice.limit_s for choice in same])
        task = f"{device}, {limit_us:.0f} us ({limit}): {chosen} ({times} of {len(same)} seeds)"
        together = np.array([choice.shares for choice in same])  # (seeds, s + 1, types)
        for s, (*others, ours) in enumerate(together.transpose(1, 2, 0)):
            where = "all stages" if s == together.shape[1] - 1 else f"stage {s}"
            peers = {name: float(np.median(each)) for name, each in zip(TYPES, others, strict=True)}
            rows.append(
                Row(task, f"score with the types of {SPACE} in {where}", "of the best", "higher",
                    float(np.median(ours)), interquartile_range(ours), peers)
            )  # fmt: skip
    return rows


def main() -> None:
    """Run what the command line asks for."""
    parser = argument_parser(__doc__, seeds=1)
    parser.add_argument("--source", required=True, help="images, as --data of nas")
    parser.add_argument("--teacher", default="shipped:cifar-mbconv", help="as --teacher of nas")
    parser.add_argument("--folder", type=Path, required=True, help="where what is learned is kept")
    parser.add_argument("--devices", default="ort", help="as --device of nas, joined by commas")
    given = parser.parse_args()
    practice, networks = (QUICK, 2_000) if given.quick else (PRACTICE, NETWORKS)
    rows = []
    with one_core():
        for device in given.devices.split(","):
            requests = [
                DesignRequest(given.folder / str(seed), given.source, device, given.teacher, TYPES,
                              practice=practice, effort=Effort(seed=seed))
                for seed in range(given.seeds)
            ]  # fmt: skip
            rows += rows_of(device, [choices(open_blocks(request), networks) for request in requests])
    report("block_types", rows, given.json)


if __name__ == "__main__":
    main()

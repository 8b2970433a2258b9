"""Evolving spaces by the Q-T score (SpaceEvo): against random spaces, against spaces of one block type, and
against the best of all.

`published`: the released block tables of a phone and of an x86 CPU with VNNI. Their latencies are their
authors' predictions, not measurements, and the constant of the stages that are not searched is left
out. Every space found is scored anew, on networks that no search has seen, and so are the spaces whose
supernets the authors released.

`measured`: 3 stages x 3 types x 3 windows on this machine, in int8 through ONNX Runtime: blocks that imitate
the stages of a supernet of the embedded digits, which is trained first. All 729 spaces are scored, so that
the best is known (target: found in at most 30 % of the evaluations).

    python benchmarks/space_design.py [--data DIR] [--seeds N] [--folder DIR] [--teacher DIR]
        [--quick] [--json OUT]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from all_spaces import all_spaces
from harness import Row, argument_parser, interquartile_range, one_core, report
from numpy.typing import NDArray
from rich.console import Console

from hw_profiles.profiles.block_samples import read_block_samples
from hw_profiles.profiles.profile_json import load_profile
from nas.cli.main import main as nas
from nas.design.command import DesignRequest, open_blocks
from nas.design.designed import tempo
from nas.run.design_settings import DistillationConfig
from nas.search.space_design import (
    NETWORKS,
    POPULATION,
    BlockTable,
    DrawnNetworks,
    Scores,
    Spaces,
    block_table,
    evolve,
    qt_score,
    random_spaces,
    scores_under,
)

LIMITS_S: Mapping[str, tuple[float, ...]] = {"mobilew": (8e-3, 15e-3, 25e-3), "onnxw": (5e-3, 10e-3, 20e-3)}
NAMES = {"mobilew": "phone table", "onnxw": "x86 table"}
TYPES = {  # in the order of the tables
    "mobilew": ("separable", "inverted", "inverted+SE", "bottleneck", "fused+SE", "stacked", "stacked+SE"),
    "onnxw": ("separable", "inverted", "inverted+SE", "bottleneck", "bottleneck+SE", "fused"),
}
RELEASED = {  # block types, then windows
    "mobilew": (
        (3, 3, 2, 1, 6, 0, 1, 3, 4, 2, 0, 0),
        (1, 1, 2, 2, 2, 0, 1, 5, 4, 4, 1, 0),
        (1, 2, 2, 2, 2, 2, 1, 5, 5, 4, 0, 0),
    ),
    "onnxw": ((1, 5, 1, 1, 2, 2, 0, 2, 3, 2, 3, 1), (1, 2, 1, 1, 2, 2, 1, 3, 3, 3, 3, 3)),
}  # fmt: skip
WIDEST = {"mobilew": (1, 5, 5, 6, 4, 3), "onnxw": (1, 3, 3, 3, 3, 3)}  # last window of every stage
EVALUATIONS = 1000  # of each search on the published tables; the authors' searches had 5000
RANDOM, FEWER = 1000, 50  # spaces that a good one is to be better than 99 % of
SHARE = 0.3  # of all spaces, in which the best is to be found
TEACHER_EPOCHS = 12
MEASURED_TYPES = "inverted,fused,bottleneck"


def published_table(data: Path, device: str) -> BlockTable:
    """The released rows of a device: loss and predicted seconds."""
    samples = read_block_samples(data / "latency" / "spaceevo_block_lut_sized.npz", device)
    return block_table(samples.groups, constant_s=[0.0] * len(samples.sizes))


def spaces_of_one_type(table: BlockTable, n: int, rng: np.random.Generator) -> Spaces:
    """(n, 2 s) random ones with one block type throughout."""
    spaces, stages = random_spaces(table, n, rng=rng), len(table.count)
    blocks = rng.integers(table.count.shape[1], size=n)
    for s in range(stages):
        spaces[:, s] = blocks
        allowed = table.allowed[s, blocks]
        spaces[:, stages + s] = np.where(allowed, rng.random(allowed.shape), -1).argmax(axis=1)
    return spaces


def compare_published(data: Path, device: str, *, seeds: int, evaluations: int, networks: int) -> list[Row]:
    """Evolution, random search and spaces of one type, with as many evaluations each."""
    table, limits = published_table(data, device), LIMITS_S[device]
    fresh = DrawnNetworks(table, networks=networks, rng=np.random.default_rng(10**6))
    n = FEWER if evaluations < EVALUATIONS else RANDOM
    among = _all_scores(fresh, limits, random_spaces(table, n, rng=np.random.default_rng(10**6 + 1)))
    winners = [_search(table, limits, seed, evaluations, networks) for seed in range(seeds)]
    rows, preferred = [], []
    for i, limit in enumerate(limits):
        unseen = scores_under(fresh, [limit])
        scores = {name: unseen(np.array([winner[name][i] for winner in winners])) for name in winners[0]}
        scores["best released"] = unseen(np.array(RELEASED[device], np.int16)).max(keepdims=True)
        rows += _rows(device, limit, scores, among[i])
        preferred.append(_preference(device, limit, [winner["evolution"][i] for winner in winners]))
    return rows + preferred


def _search(
    table: BlockTable, limits: Sequence[float], seed: int, evaluations: int, networks: int
) -> dict[str, list[NDArray[np.int16]]]:
    """The best space of each way to search, under each of the limits."""
    drawn = DrawnNetworks(table, networks=networks, rng=np.random.default_rng([seed, 0]))
    rng, population = np.random.default_rng([seed, 1]), min(POPULATION, max(20, evaluations // 10))
    others = {
        "random": random_spaces(table, evaluations, rng=rng),
        "one type": spaces_of_one_type(table, evaluations, rng),
    }
    evolved = [
        evolve(
            table,
            scores_under(drawn, [limit]),
            rng=rng,
            population=population,
            tournament=max(2, population // 4),
            evaluations=evaluations,
        ).best
        for limit in limits
    ]
    best = {
        name: [spaces[int(score.argmax())] for score in _all_scores(drawn, limits, spaces)]
        for name, spaces in others.items()
    }
    return {"evolution": evolved, **best}


def _all_scores(drawn: DrawnNetworks, limits: Sequence[float], spaces: Spaces) -> NDArray[np.float64]:
    """(limits, n) scores of spaces, each drawn once."""
    scores = np.empty((len(limits), len(spaces)))
    for i, space in enumerate(spaces):
        loss, latency_s = drawn(space)
        scores[:, i] = [qt_score(loss, latency_s, limit) for limit in limits]
    return scores


def _rows(
    device: str, limit: float, scores: Mapping[str, NDArray[np.float64]], among: NDArray[np.float64]
) -> list[Row]:
    ours = scores["evolution"]
    peers = {name: float(np.median(values)) for name, values in scores.items() if name != "evolution"}
    task = f"{NAMES[device]}, {limit * 1e3:g} ms"
    beaten = np.array([float((among < score).mean()) for score in ours])
    return [
        Row(task, "Q-T score of the space found", "score", "higher", float(np.median(ours)),
            interquartile_range(ours), peers),
        Row(task, f"of {len(among)} random spaces that score less", "share", "higher",
            float(np.median(beaten)), interquartile_range(beaten), {}, 0.99),
    ]  # fmt: skip


def _preference(device: str, limit: float, spaces: Sequence[NDArray[np.int16]]) -> Row:
    """Which types the evolved spaces have, and how wide their windows are, from 0 to 1 the widest."""
    stages = len(spaces[0]) // 2
    names = [", ".join(TYPES[device][t] for t in space[:stages]) for space in spaces]
    usual = max(sorted(names), key=names.count)
    widths = np.array([(space[stages:] / WIDEST[device]).mean() for space in spaces])
    return Row(
        f"{NAMES[device]}, {limit * 1e3:g} ms: {usual} ({names.count(usual)} of {len(names)} seeds)",
        "mean position of the best space's windows", "share", "higher",
        float(np.median(widths)), interquartile_range(widths),
    )  # fmt: skip


# -- measured --------------------------------------------------------------------------------------


def measured_table(folder: Path, teacher: Path | None, quick: bool) -> BlockTable:
    """Blocks that imitate a supernet of the digits, and their int8 seconds on this machine."""
    design, epochs = folder / "design", "1" if quick else str(TEACHER_EPOCHS)
    if teacher is None:
        teacher = folder / "teacher"
        if nas(["train", "--data", "digits", "--epochs", epochs, "-o", str(teacher)]):
            raise SystemExit("the teacher could not be trained")
    words = ["--teacher", str(teacher), "--types", MEASURED_TYPES, "-o", str(design)]
    words += ["--steps", "4", "--samples", "2", "--images", "128", "--evaluations", "9"] if quick else []
    if nas(["spaces", "design", *words]):
        raise SystemExit("no space could be designed")
    practice = DistillationConfig(steps=4, samples=2, images=128) if quick else DistillationConfig()
    types = tuple(MEASURED_TYPES.split(","))
    blocks = open_blocks(DesignRequest(design, teacher=str(teacher), types=types, practice=practice))
    return blocks.table(load_profile(blocks.run.profile_path).cost_s)


def compare_measured(table: BlockTable, *, seeds: int, networks: int) -> list[Row]:
    """How soon evolution finds the best of all spaces, under a tight and an easy limit."""
    drawn = DrawnNetworks(table, networks=networks, rng=np.random.default_rng(0))
    spaces = all_spaces(table)
    latency_s = np.concatenate([drawn(space)[1][:1000] for space in spaces[::7]])
    rows = []
    for share in (0.1, 0.5):
        limit = float(np.quantile(latency_s, share))
        task = f"measured 3 x 3 x 3, {limit * 1e6:.0f} us ({share:.0%} of all networks)"
        rows += _find_best(table, spaces, scores_under(drawn, [limit]), task, seeds)
    return rows


def _find_best(table: BlockTable, spaces: Spaces, score: Scores, task: str, seeds: int) -> list[Row]:
    scores, (population, tournament) = score(spaces), tempo(table)
    allowed, best = int(SHARE * len(spaces)), scores.max()
    needed, random, reached = np.empty(seeds), np.empty(seeds), np.empty(seeds)
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 2])
        evolution = evolve(
            table, score, rng=rng, population=population, tournament=tournament, evaluations=allowed
        )
        hit = np.flatnonzero(evolution.scores == best)
        needed[seed] = hit[0] + 1 if len(hit) else len(spaces)
        reached[seed] = evolution.scores.max() / best
        random[seed] = np.flatnonzero(rng.permutation(scores) == best)[0] + 1
    of_one_type = scores[(spaces[:, 1:3] == spaces[:, :1]).all(axis=1)].max()
    return [
        Row(task, f"evaluations until the best of {len(spaces)} spaces", "evaluations", "lower",
            float(np.median(needed)), interquartile_range(needed),
            {"random": float(np.median(random))}, float(allowed)),
        Row(task, f"seeds that find it within {allowed}", "share", "higher",
            float((needed <= allowed).mean()), 0.0, {}, 1.0),
        Row(task, "score found over the best", "ratio", "higher", float(np.median(reached)),
            interquartile_range(reached), {"best of one type": float(of_one_type / best)}),
    ]  # fmt: skip


def main() -> None:
    """Run what the command line asks for."""
    parser = argument_parser(__doc__, seeds=3)
    parser.add_argument("--folder", type=Path, help="where what is trained and measured is kept")
    parser.add_argument("--teacher", type=Path, help="run folder of a trained supernet of the digits")
    given = parser.parse_args()
    networks, evaluations = (2000, 60) if given.quick else (NETWORKS, EVALUATIONS)
    rows = []
    with one_core(), TemporaryDirectory() as temporary:
        table = measured_table(given.folder or Path(temporary), given.teacher, given.quick)
        rows += compare_measured(table, seeds=2 if given.quick else 10, networks=networks)
        Console().print("measured: done")
        for device in LIMITS_S if given.data.exists() else ():
            rows += compare_published(
                given.data, device, seeds=given.seeds, evaluations=evaluations, networks=networks
            )
            Console().print(f"{NAMES[device]}: done")
    report("space_design", rows, given.json)


if __name__ == "__main__":
    main()

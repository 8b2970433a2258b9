"""The headline experiment: stages keep to their genes, fronts are compared as promised, and it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.profiles.profile import DeviceProfile
from nas.problem.costs import compile_costs
from predictors.predictor import Prediction
from supernet.families.family import Family
from supernet.space.space import Choice, Genomes, SearchSpace

ROOT = Path(__file__).parents[2]
SMALL = 600  # evaluations


@pytest.fixture(scope="module")
def methods() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        import joint_methods
    return joint_methods


@pytest.fixture(scope="module")
def fronts() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        import joint_fronts
    return joint_fronts


@pytest.fixture(scope="module")
def plot() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        import joint_plot
    return joint_plot


@pytest.fixture(scope="module")
def exported() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        import joint_exported
    return joint_exported


class Sum:
    """Accuracy that grows with every gene but those of formats."""

    def __init__(self, space: SearchSpace) -> None:
        self.columns = [i for i, choice in enumerate(space.choices) if choice.kind != "precision"]

    def fit(self, genomes: Genomes, targets: np.ndarray) -> Self:
        return self

    def predict(self, genomes: Genomes) -> Prediction:
        total = genomes[:, self.columns].sum(axis=1) / 100
        return Prediction(total, np.full(len(genomes), 0.01))


@pytest.fixture(scope="module")
def task(methods: ModuleType, family: Family, device_profile: DeviceProfile) -> Any:
    return methods.Task(family, compile_costs(family, device_profile), Sum(family.space()))


def columns(space: SearchSpace, *kinds: str) -> list[int]:
    return [column for column, choice in enumerate(space.choices) if choice.kind in kinds]


@given(seed=st.integers(0, 10_000), kinds=st.sets(st.sampled_from(["architecture", "pruning", "precision"])))
def test_a_slice_varies_its_kinds_and_nothing_else(
    methods: ModuleType, family: Family, seed: int, kinds: set[str]
) -> None:
    space, rng = family.space(), np.random.default_rng(seed)
    genome = space.sample(1, rng=rng)[0]
    part = methods.Slice(space, genome, tuple(kinds))
    drawn = part.space.sample(20, rng=rng)
    whole = part.widen(drawn)
    np.testing.assert_array_equal(space.canonical(whole), whole)
    np.testing.assert_array_equal(part.narrow(whole), drawn)
    if "architecture" in kinds:  # what depends on depth may have died
        return
    others = [column for column in range(len(space.choices)) if space.choices[column].kind not in kinds]
    assert (whole[:, others] == genome[others]).all()


def test_a_slice_has_a_choice_for_every_living_gene(methods: ModuleType, family: Family) -> None:
    space = family.space()
    genome = space.sample(1, rng=np.random.default_rng(3))[0]
    part = methods.Slice(space, genome, ("pruning",))
    living = space.active(genome[None])[0]
    assert len(part.space.choices) == living[columns(space, "pruning")].sum()


def test_conditions_on_what_is_fixed_are_decided(methods: ModuleType) -> None:
    choices = (
        Choice("depth", (1, 2)),
        Choice("wide", (0, 1), "pruning", (("depth", (2,)),)),
        Choice("format", ("a", "b"), "precision", (("wide", (1,)),)),
    )
    space = SearchSpace("nested", choices)

    def names(genome: list[int], *kinds: str) -> list[str]:
        part = methods.Slice(space, np.array(genome, np.int16), kinds)
        return [choice.name for choice in part.space.choices]

    assert names([0, 0, 0], "pruning", "precision") == []
    assert names([1, 0, 0], "precision") == []
    assert names([1, 1, 0], "precision") == ["format"]
    assert names([1, 1, 0], "architecture", "precision") == ["depth", "format"]
    part = methods.Slice(space, np.array([1, 1, 0], np.int16), ("architecture", "precision"))
    assert part.space.choices[1].active_if == (("depth", (2,)),)


def test_stages_only_change_what_is_theirs(methods: ModuleType, task: Any) -> None:
    space = task.space
    first = task.search(task.corner("largest/fp32"), ("architecture",), SMALL, 0)
    living = space.active(first.genomes)
    widest = space.cardinalities - 1
    pruning = columns(space, "pruning")
    assert (first.genomes[:, pruning] == np.where(living, widest, 0)[:, pruning]).all()
    assert (first.genomes[:, columns(space, "precision")] == 0).all()
    assert len(np.unique(first.genomes, axis=0)) > 5


def test_all_genes_together_are_no_worse_than_stages(
    methods: ModuleType, fronts: ModuleType, task: Any
) -> None:
    """Where formats cost no accuracy and evaluations are plenty."""
    joint, stages = (methods.METHODS[name](task, 10 * SMALL, 0) for name in ("joint", "sequential"))
    curves = [fronts.Curve(one.latency_s, one.accuracy) for one in (joint, stages)]
    ours, theirs = fronts.shares(curves)
    assert 0 < theirs < ours < 1


def test_the_fixed_network_is_uniform(methods: ModuleType, task: Any) -> None:
    space = task.space
    fixed = [space.decode(space.candidate(genome)) for genome in methods.fixed_networks(task)]
    assert len(fixed) == len(methods.WIDTHS)
    for one in fixed:
        assert {value for name, value in one.items() if name.endswith(".kernel")} == {3}
        assert {value for name, value in one.items() if name.endswith(".format")} == {"int8"}
        assert one["resolution"] == max(space.choices[0].options)


def test_networks_are_spread_over_latency(methods: ModuleType) -> None:
    latency_s = np.array([3.0, 1.0, 2.0, 8.0, 4.0])
    genomes = np.arange(5, dtype=np.int16)[:, None]
    front = methods.Front.of(genomes, latency_s, np.array([0.3, 0.1, 0.05, 0.8, 0.4]))
    assert front.genomes[:, 0].tolist() == [
        1,
        0,
        4,
        3,
    ]  # the third network is slower and worse than the second
    assert methods.spread(front, 4) == [0, 2, 3]  # none between 1 and 2 but the first itself
    assert methods.spread(front, 2, low_s=3.5, high_s=4.0) == [1, 2]


def test_fronts_are_compared_where_both_are(fronts: ModuleType) -> None:
    slow = fronts.Curve(np.array([2.0, 8.0]), np.array([0.5, 0.7]))
    fast = fronts.Curve(slow.latency_s / 2, slow.accuracy)
    found = fronts.apart(fast, slow)
    assert found.latencies_s == (2.0, 4.0)
    assert found.times == pytest.approx(2)
    assert found.points == pytest.approx(10)  # half a doubling of 4 is worth 20 points
    back = fronts.apart(slow, fast)
    assert (back.times, back.points) == (pytest.approx(1 / 2), pytest.approx(-10))
    far = fronts.apart(fast, fronts.Curve(np.array([100.0]), np.array([0.9])))
    assert np.isnan(far.points)
    assert np.isnan(far.times)


def test_dominated_networks_do_not_count(fronts: ModuleType) -> None:
    good = fronts.Curve(np.array([1.0, 4.0]), np.array([0.5, 0.7]))
    more = fronts.Curve(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.4, 0.7]))
    assert fronts.apart(more, good).points == pytest.approx(0)


def test_standard_errors_are_those_of_paired_shares(fronts: ModuleType) -> None:
    """One network each, of equal latency: the difference of two shares over the same images."""
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 1, 4000)) < np.array([0.8, 0.7])[:, None, None]
    latency_s = np.array([1.0])
    points, _ = fronts.standard_errors([latency_s] * 2, [first, second], rng)
    expected = 100 * (first.astype(float) - second).std() / np.sqrt(4000)
    assert points == pytest.approx(expected, rel=0.15)


def test_the_picture_has_every_network_and_lines_of_the_best(plot: ModuleType, tmp_path: Path) -> None:
    measured = {"joint": [(50.0, 80.0), (90.0, 79.0), (100.0, 84.0)], "sequential": [(60.0, 81.0)]}
    rows = [
        {"task": f"network {i}: {method}", "ours": x, "peers": {"test accuracy, %": y}}
        for method, points in measured.items()
        for i, (x, y) in enumerate(points)
    ]
    path = tmp_path / "rows.json"
    other = {"task": "predicted: joint", "ours": 1.0, "peers": {}}
    path.write_text(json.dumps({"benchmark": "joint_vs_sequential", "rows": [*rows, other]}))
    picture = ElementTree.fromstring(plot.draw([plot.read_panel(path, 0)]))
    space = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points", "").split() for line in picture.iter(f"{space}polyline")]
    assert [len(line) for line in lines] == [2, 1]
    networks = [dot for dot in picture.iter(f"{space}circle") if dot.get("stroke")]
    assert len(networks) == 4
    assert {dot.get("fill") for dot in networks} == {plot.COLOURS[method] for method in measured}


@pytest.mark.slow
def test_the_benchmark_runs_on_the_embedded_digits(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    line = [
        sys.executable,
        str(ROOT / "benchmarks" / "joint_vs_sequential.py"),
        "--quick",
        "--json",
        str(out),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(line, check=True, env=environment, cwd=ROOT, timeout=900, stdout=subprocess.DEVNULL)
    rows = json.loads(out.read_text())["rows"]
    assert any(row["task"].startswith("predicted") and row["metric"] == "hypervolume" for row in rows)
    networks = [row for row in rows if row["task"].startswith("network")]
    assert {row["task"].partition(": ")[2] for row in networks} >= {"joint", "sequential"}
    assert all(row["ours"] > 0 and 0 <= row["peers"]["test accuracy, %"] <= 100 for row in networks)


def test_where_one_search_alone_gets_some_networks_are_exported_too(exported: ModuleType, task: Any) -> None:
    """A fixed network may be as fast as that."""
    drawn = task.space.sample(300, rng=np.random.default_rng(0))
    whole = task.front(drawn)
    later = task.front(drawn[task.latency_s(drawn) >= np.median(whole.latency_s)])
    builder = SimpleNamespace(run=None, network=lambda candidate: candidate)
    chosen = exported.choose(builder, task, {"joint": whole, "sequential": later}, 4, [])
    latencies = {
        name: [float(c.expected["predicted latency, us"]) / 1e6 for c in chosen if c.method == name]
        for name in ("joint", "sequential")
    }
    begin_s = later.latency_s[0]
    assert min(latencies["joint"]) == pytest.approx(whole.latency_s[0])
    assert 1 <= sum(seconds < begin_s * (1 - 1e-9) for seconds in latencies["joint"]) <= 3
    assert min(latencies["sequential"]) == pytest.approx(begin_s)
    assert len(latencies["joint"]) == len(set(latencies["joint"])) <= 4 + 3

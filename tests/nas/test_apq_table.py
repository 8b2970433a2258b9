"""APQ's space on APQ's published table: what it covers, what networks cost there, and what a search finds."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.published_tables import Coverage, read_table
from hw_profiles.runtimes.analytical.table import TableDevice
from hw_profiles.runtimes.runtime import Job
from nas.problem.costs import Costs, compile_costs
from nas.problem.reachable import worst_costs
from nas.problem.targets import Targets
from nas.search.loop import search
from nas.search.objectives import Values, objective
from nas.search.searcher import make_searcher
from predictors.table import distinct_layers
from supernet.families.family import Family, load_family
from supernet.space.space import Genomes
from tests.published_data import DataFile

STAGES = (
    (16, 24, 2, 112),
    (24, 40, 2, 56),
    (40, 80, 2, 28),
    (80, 96, 1, 14),
    (96, 192, 2, 14),
    (192, 320, 1, 7),
)
POSITIONS = [(s, b) for s in range(6) for b in range(4 if s < 5 else 1)]
Published = tuple[Mapping[tuple[int, ...], tuple[float, float]], tuple[float, float]]


@pytest.fixture(scope="module")
def table(data_file: DataFile) -> Path:
    return data_file("ofa/apq_bitfusion_b1_lut.npz")


@pytest.fixture(scope="module")
def apq() -> Family:
    return load_family("apq-proxyless", in_channels=3, classes=1000)


@pytest.fixture(scope="module")
def published(table: Path) -> Published:
    """Milliseconds and millijoules of every row, and of both constants together."""
    with np.load(table, allow_pickle=False) as file:
        rows = {tuple(map(int, row[:9])): (row[9], row[10]) for row in file["rows"].tolist()}
        ends = tuple((file["head"] + file["tail"]).tolist())
    return rows, (ends[0], ends[1])


@pytest.fixture(scope="module")
def layers(apq: Family) -> tuple[Layer, ...]:
    return distinct_layers(apq.space(), apq.terms())


@pytest.fixture(scope="module")
def costs(apq: Family, layers: tuple[Layer, ...], table: Path) -> Costs:
    """Of the table as a device: every unit of the space looked up, as `nas profile` does."""
    device = TableDevice(path=table)
    measured = device.measure([Job(single(layer), bytes) for layer in layers], MeasurePlan())
    return compile_costs(
        apq, DeviceProfile(device.describe(), MeasurePlan(), dict(zip(layers, measured, strict=True)))
    )


def convolutions(family: Family, genome: Genomes) -> list[tuple[int, ...]]:
    """Of the positions that a network uses, as the table names them."""
    space = family.space()
    decisions = space.decode(space.candidate(genome))
    layers = []
    for s, b in POSITIONS:
        name, (entry, width, stride, size) = f"s{s}.b{b}", STAGES[s]
        if b > 0:
            entry, size, stride = width, size // stride, 1
        if f"{name}.kernel" not in decisions:
            continue
        kernel, middle = int(decisions[f"{name}.kernel"]), int(decisions[f"{name}.expanded"])
        point, deep = (
            [
                int(str(decisions[f"{name}.{kind}.{of}"]).removeprefix("int"))
                for of in ("weight", "activation")
            ]
            for kind in ("pointwise", "depthwise")
        )
        layers += [
            (entry, middle, size, 1, 1, 0, 1, *point),
            (middle, middle, size, kernel, stride, kernel // 2, middle, *deep),
            (middle, width, size // stride, 1, 1, 0, 1, *point),
        ]
    return layers


def integer(family: Family, n: int) -> Genomes:
    """Random networks of the published space."""
    space = family.space()
    return np.array([g for g in space.sample(3 * n, rng=np.random.default_rng(0)) if g[0] == 1][:n])


def invalid(rows: list[tuple[int, ...]]) -> bool:
    """The published table lacks one kind: a 7x7 depthwise convolution with 4-bit activations."""
    return any(kernel == 7 and bits == 4 for *_, kernel, _, _, _, _, bits in rows)


def expected(family: Family, genome: Genomes, published: Published) -> tuple[float, float] | None:
    """Seconds and joules of a network; None where it is invalid."""
    layers, (rows, ends) = convolutions(family, genome), published
    if invalid(layers):
        return None
    sums = [sum(rows[row][of] for row in layers) + ends[of] for of in (0, 1)]
    return sums[0] * 1e-3, sums[1] * 1e-3


def test_every_combination_is_covered_but_7x7_depthwise_with_4_bit_activations(
    layers: tuple[Layer, ...], table: Path
) -> None:
    searched = [
        x for x in layers if x.kind == "conv" and x.weight_format != "fp32" and x.out_channels != 1280
    ]
    covered: Coverage = read_table(table).coverage(searched)
    assert (len(covered.covered), len(covered.interpolated), len(covered.missing)) == (6567, 0, 444)
    assert len(covered.uncounted) == 2  # the first block, which does not change
    missing = Counter((x.kernel, x.depthwise, x.weight_format, x.activation_format) for x in covered.missing)
    assert missing == {(7, True, weight, "int4"): 148 for weight in ("int4", "int6", "int8")}


def test_networks_take_the_sums_of_the_published_rows(apq: Family, published: Published, table: Path) -> None:
    genomes, device, space = integer(apq, 120), TableDevice(path=table), apq.space()
    jobs = [Job(apq.workload(space.candidate(genome)), bytes) for genome in genomes]
    valid = 0
    for genome, measured in zip(genomes, device.measure(jobs, MeasurePlan()), strict=True):
        found = expected(apq, genome, published)
        if found is None:
            assert "does not cover 'conv" in str(measured.error)
            assert " k7s" in str(measured.error)
        else:
            valid += 1
            assert (measured.median_s, measured.energy_j) == pytest.approx(found, rel=1e-12)
    assert 5 < valid < 60  # about (8/9)^16 of them


@pytest.mark.slow
def test_predicted_costs_are_the_sums_of_the_published_rows(
    apq: Family, costs: Costs, published: Published
) -> None:
    genomes = integer(apq, 400)
    predicted = costs.predict(genomes)
    for genome, latency_s, energy_j in zip(genomes, predicted["latency"], predicted["energy"], strict=True):
        found = expected(apq, genome, published) or (np.inf, np.inf)
        assert (latency_s, energy_j) == pytest.approx(found, rel=1e-12)


@pytest.mark.slow
def test_fp32_networks_do_not_run_there(apq: Family, costs: Costs) -> None:
    corners = apq.extremes()
    found = costs.predict(np.array([c.genes for c in corners.values()], np.int16))["latency"]
    runs = {name for name, latency_s in zip(corners, found, strict=True) if np.isfinite(latency_s)}
    # the largest have 7x7 kernels
    assert runs == {"smallest/int8", "smallest/int6", "smallest/int4", "largest/int8", "largest/int6"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evolution", "nsga2"])
def test_a_search_finds_only_networks_that_the_table_covers_and_says_how_many_it_does_not(
    name: str, apq: Family, costs: Costs
) -> None:
    objectives = Targets((objective("latency"), objective("macs")), ())

    def evaluate(genomes: Genomes) -> tuple[Values, Values]:
        values = costs.predict(genomes)
        least = objectives.minimised(values) * np.array([1.0, -1.0])  # fast, and of much arithmetic
        return least, objectives.violation(values)

    worst = worst_costs(apq, costs, seed=0)
    result = search(
        make_searcher(name, apq.space(), seed=0),
        evaluate,
        budget=3000,
        batch=250,
        reference=[worst["latency"], 0.0],
    )
    assert len(result.genomes) > 5
    assert not any(invalid(convolutions(apq, genome)) for genome in result.genomes)
    assert np.isfinite(costs.predict(result.genomes)["latency"]).all()
    assert 0 < result.rejected < result.evaluations

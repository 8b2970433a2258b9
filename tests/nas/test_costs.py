"""Compiled costs against the profile itself and against the files that are really written."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.measure.measurement import Estimate, Measurement
from hw_profiles.profiles.latency_model import KINDS, Calibration
from hw_profiles.profiles.profile import DeviceProfile
from nas.emit.to_onnx import emit, random_network
from nas.problem.costs import Costs, compile_costs
from supernet.families.family import Family
from supernet.space.space import Candidate, Genomes

EXACT = 1e-12  # the same sums in another order
EMITTED = 0.03  # names of layers, and so the sizes of nodes, differ a little


@pytest.fixture(scope="session")
def costs(family: Family, device_profile: DeviceProfile) -> Costs:
    return compile_costs(family, device_profile)


@pytest.fixture(scope="session")
def genomes(family: Family) -> Genomes:
    corners = np.array([candidate.genes for candidate in family.extremes().values()], np.int16)
    return np.concatenate([corners, family.space().sample(200, rng=np.random.default_rng(0))])


@pytest.fixture(scope="session")
def candidates(family: Family, genomes: Genomes) -> list[Candidate]:
    return [family.space().candidate(genome) for genome in genomes]


def test_latency_is_the_profiles_prediction(
    costs: Costs, family: Family, device_profile: DeviceProfile, genomes: Genomes, candidates: list[Candidate]
) -> None:
    expected = [device_profile.predict_s(family.workload(candidate)) for candidate in candidates]
    np.testing.assert_allclose(costs.predict(genomes)["latency"], expected, rtol=EXACT)
    assert np.ptp(expected) > 0.5 * np.mean(expected)


def test_macs_are_the_workloads(
    costs: Costs, family: Family, genomes: Genomes, candidates: list[Candidate]
) -> None:
    expected = [sum(map(macs, family.workload(candidate).layers)) for candidate in candidates]
    np.testing.assert_array_equal(costs.predict(genomes)["macs"], expected)


def test_size_is_that_of_the_emitted_file(
    costs: Costs, family: Family, genomes: Genomes, candidates: list[Candidate]
) -> None:
    rng, some = np.random.default_rng(0), slice(None, None, 10)
    files = [emit(random_network(family.workload(c), rng=rng)) for c in candidates[some]]
    np.testing.assert_allclose(costs.predict(genomes)["size"][some], [*map(len, files)], rtol=EMITTED)


def test_memory_is_the_peak_of_the_workload(
    costs: Costs, family: Family, genomes: Genomes, candidates: list[Candidate]
) -> None:
    expected = [peak_bytes(family.workload(candidate)) for candidate in candidates]
    np.testing.assert_array_equal(costs.predict(genomes)["memory"], expected)


def test_static_costs_need_no_profile(costs: Costs, family: Family, genomes: Genomes) -> None:
    static = compile_costs(family, None).predict(genomes)
    for name in ("size", "macs", "memory"):
        np.testing.assert_array_equal(static[name], costs.predict(genomes)[name])
    assert not static["latency"].any()


def test_rows_do_not_depend_on_their_neighbours(costs: Costs, genomes: Genomes) -> None:
    together = costs.predict(genomes)
    for name, values in together.items():
        alone = np.concatenate([costs.predict(row[None])[name] for row in genomes])
        np.testing.assert_allclose(values, alone, rtol=EXACT)


def test_expected_errors_follow_the_held_out_ones(
    family: Family, device_profile: DeviceProfile, costs: Costs, genomes: Genomes
) -> None:
    latency_s = costs.predict(genomes)["latency"]
    assert costs.latency_std(latency_s) == pytest.approx(latency_s * 0.01, rel=0.6)
    untested = compile_costs(family, replace(device_profile, calibration=Calibration()))
    assert not untested.latency_std(latency_s).any()


# -- units that the device rejects -----------------------------------------------------------------

SLOPES = {"none": (0.0,) * len(KINDS), "negative": (-0.5,) * len(KINDS), "usual": (0.9, 1.1, 1.0) * 3}


def rejects(layer: Layer) -> bool:
    return layer.depthwise and layer.kernel == 7 and layer.activation_format == "int8"


@pytest.fixture(scope="session")
def rejecting(device_profile: DeviceProfile) -> DeviceProfile:
    """The same device, which lacks one kernel in int8."""
    table = {
        layer: Measurement(error="no kernel") if rejects(layer) else row
        for layer, row in device_profile.table.items()
    }
    return replace(device_profile, table=table)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("slopes", SLOPES.values(), ids=list(SLOPES))
def test_a_rejected_unit_costs_infinitely_whatever_the_slopes(
    family: Family,
    rejecting: DeviceProfile,
    genomes: Genomes,
    candidates: list[Candidate],
    slopes: tuple[float, ...],
) -> None:
    costs = compile_costs(family, replace(rejecting, calibration=Calibration(slopes)))
    latency_s = costs.predict(genomes)["latency"]
    hit = [any(map(rejects, family.workload(candidate).layers)) for candidate in candidates]
    assert 0 < sum(hit) < len(hit)
    np.testing.assert_array_equal(np.isposinf(latency_s), hit)
    assert np.isfinite(latency_s[~np.array(hit)]).all()
    assert np.isfinite(costs.latency_std(latency_s)).all()


def test_what_is_not_rejected_costs_the_same(
    family: Family, costs: Costs, rejecting: DeviceProfile, genomes: Genomes
) -> None:
    found, usual = compile_costs(family, rejecting).predict(genomes), costs.predict(genomes)
    fine = np.isfinite(found["latency"])
    np.testing.assert_allclose(found["latency"][fine], usual["latency"][fine], rtol=EXACT)
    np.testing.assert_array_equal(found["memory"], usual["memory"])


# -- energy ----------------------------------------------------------------------------------------


def joules(layer: Layer) -> float:
    return 1e-9 * layer.in_shape[0] + 1e-8


@pytest.fixture(scope="session")
def metered(rejecting: DeviceProfile) -> DeviceProfile:
    """Energy of every row that the device runs."""
    table = {
        layer: row if row.error else replace(row, energy_j=joules(layer))
        for layer, row in rejecting.table.items()
    }
    return replace(rejecting, table=table)


def test_energy_is_the_sum_of_the_rows(
    family: Family, metered: DeviceProfile, genomes: Genomes, candidates: list[Candidate]
) -> None:
    values = compile_costs(family, metered).predict(genomes)
    layers = [family.workload(candidate).layers for candidate in candidates]
    expected = [np.inf if any(map(rejects, one)) else sum(map(joules, one)) for one in layers]
    np.testing.assert_allclose(values["energy"], expected, rtol=EXACT)


def test_there_is_no_energy_where_one_row_lacks_it(
    family: Family, device_profile: DeviceProfile, metered: DeviceProfile, genomes: Genomes
) -> None:
    table = dict(metered.table)
    layer = next(layer for layer in table if not rejects(layer))
    table[layer] = replace(table[layer], energy_j=None)
    estimated = {other: row for other, row in metered.table.items() if other != layer}
    for profile in (
        device_profile,
        replace(metered, table=table),
        replace(metered, table=estimated, estimates={layer: Estimate(1e-6, 1e-7)}),
    ):
        assert "energy" not in compile_costs(family, profile).predict(genomes)
    assert "energy" not in compile_costs(family, None).predict(genomes)

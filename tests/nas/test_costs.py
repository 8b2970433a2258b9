"""Compiled costs against the profile itself and against the files that are really written."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.profile import Calibration, DeviceProfile
from nas.costs import Costs, compile_costs, workload_macs
from nas.export.to_onnx import emit, random_network
from supernet.family import Family
from supernet.space import Candidate, Genomes

EXACT = 1e-12  # the same sums in another order
EMITTED = 0.03  # names of layers, and so the sizes of nodes, differ a little


@pytest.fixture(scope="session")
def costs(family: Family, device_profile: DeviceProfile) -> Costs:
    return compile_costs(family, device_profile)


@pytest.fixture(scope="session")
def genomes(family: Family) -> Genomes:
    corners = np.array([candidate.genes for candidate in family.corners().values()], np.int16)
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
    expected = [workload_macs(family.workload(candidate)) for candidate in candidates]
    np.testing.assert_array_equal(costs.predict(genomes)["macs"], expected)


def test_size_is_that_of_the_emitted_file(
    costs: Costs, family: Family, genomes: Genomes, candidates: list[Candidate]
) -> None:
    rng, some = np.random.default_rng(0), slice(None, None, 10)
    files = [emit(random_network(family.workload(c), rng=rng)) for c in candidates[some]]
    np.testing.assert_allclose(costs.predict(genomes)["size"][some], [*map(len, files)], rtol=EMITTED)


def test_size_and_macs_need_no_profile(costs: Costs, family: Family, genomes: Genomes) -> None:
    static = compile_costs(family, None).predict(genomes)
    for name in ("size", "macs"):
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

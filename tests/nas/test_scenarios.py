"""Costs of decoders in scenarios: two latencies in one gather, tokens a second, memory with caches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.cache import cache_bytes
from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.working_set import working_set_bytes
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.latency_model import Calibration
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from nas.problem.costs import compile_costs
from nas.problem.reachable import check_reachable, worst_costs
from nas.problem.targets import Targets, largest_costs, resolve_targets
from nas.run.config import RunConfig, SearchSection, SpaceSection
from nas.search.objectives import objective
from nas.stages.validation import random_networks
from predictors.table import profiled_layers
from supernet.families.family import asked_for, load_family
from tests.conftest import DEVICE
from tests.nas.tiny_decoder import TinyDecoder, tiny_decoder

FAMILY = tiny_decoder(in_channels=64, classes=64)
GENOMES = FAMILY.space().sample(40, rng=np.random.default_rng(0))
SCENARIOS = ("prefill", "decode")
CANDIDATES = [FAMILY.space().candidate(genome) for genome in GENOMES]


def seconds(layer: Layer) -> float:
    """What a made-up device takes: a little for each layer, and for what it multiplies and reads."""
    read = sum(np.prod([1 if dim == "batch" else int(dim) for dim in x.shape]) for x in layer.inputs)
    return 1e-6 + 1e-9 * macs(layer) + 1e-10 * float(read)


@pytest.fixture(scope="module")
def profile() -> DeviceProfile:
    table = {layer: Measurement((seconds(layer),) * 3) for layer in profiled_layers(FAMILY)}
    return DeviceProfile(DEVICE, MeasurePlan(), table)


def test_a_profile_holds_the_layers_of_every_scenario_and_costs_are_their_sums(
    profile: DeviceProfile,
) -> None:
    values = compile_costs(FAMILY, profile).predict(GENOMES)
    for name in SCENARIOS:
        works = [FAMILY.scenario_workload(FAMILY.space().candidate(genome), name) for genome in GENOMES]
        expected = [profile.predict_s(work) for work in works]
        np.testing.assert_allclose(values[f"latency.{name}"], expected, rtol=1e-9)
    np.testing.assert_array_equal(values["latency"], values["latency.prefill"])
    np.testing.assert_allclose(values["tokens_per_s"] * values["latency.decode"], 1)
    assert (values["latency.prefill"] > values["latency.decode"]).all()


def test_each_scenario_has_a_calibration_of_its_own(profile: DeviceProfile) -> None:
    doubled = Calibration(intercept_s=1e-4)
    costs = compile_costs(FAMILY, profile.calibrated(Calibration(), "prefill").calibrated(doubled, "decode"))
    plain, other = compile_costs(FAMILY, profile).predict(GENOMES), costs.predict(GENOMES)
    np.testing.assert_allclose(other["latency.prefill"], plain["latency.prefill"])
    np.testing.assert_allclose(other["latency.decode"], plain["latency.decode"] + 1e-4)


def test_a_working_set_beyond_the_nearest_cache_costs_what_the_profile_says(profile: DeviceProfile) -> None:
    sizes = [working_set_bytes(FAMILY.scenario_workload(c, "decode")) for c in CANDIDATES]
    small = Calibration(cache_bytes=float(np.median(sizes)), per_byte_s=1e-10)
    costs = compile_costs(FAMILY, profile.calibrated(Calibration(), "prefill").calibrated(small, "decode"))
    plain, other = compile_costs(FAMILY, profile).predict(GENOMES), costs.predict(GENOMES)
    spilled = np.maximum(0.0, np.array(sizes) - small.cache_bytes)
    assert (spilled == 0).any()
    np.testing.assert_array_equal(other["latency.prefill"], plain["latency.prefill"])
    np.testing.assert_allclose(other["latency.decode"], plain["latency.decode"] + 1e-10 * spilled)
    assert other.keys() == plain.keys()


def test_past_keys_and_values_are_of_the_working_set() -> None:
    candidate = CANDIDATES[0]
    decoded, prompt = (
        working_set_bytes(FAMILY.scenario_workload(candidate, name)) for name in SCENARIOS[::-1]
    )
    assert decoded > prompt > 0


def test_a_profile_with_scenarios_is_read_as_it_was_written(profile: DeviceProfile, tmp_path: Path) -> None:
    both = profile.calibrated(Calibration(intercept_s=1e-5), "prefill").calibrated(
        Calibration(intercept_s=2e-5, cache_bytes=1.5e6, per_byte_s=6e-11), "decode"
    )
    save_profile(both, tmp_path / "profile.json")
    found = load_profile(tmp_path / "profile.json")
    assert found.scenarios == both.scenarios
    assert found.calibration == both.scenarios["prefill"]
    assert found.table.keys() == profile.table.keys()


def test_memory_is_what_is_alive_and_what_caches_hold() -> None:
    """At least what the workload needs, and at most a position of every block, or a prompt's caches, more."""
    found = compile_costs(FAMILY, None).predict(GENOMES)["memory"]
    for genome, memory in zip(GENOMES, found, strict=True):
        candidate = FAMILY.space().candidate(genome)
        needed = {name: peak_bytes(FAMILY.scenario_workload(candidate, name)) for name in SCENARIOS}
        layers = FAMILY.open_workload(candidate).layers
        held = sum(cache_bytes(layer, FAMILY.scenarios["prefill"]) for layer in layers)
        assert max(needed.values()) <= memory <= max(needed.values()) + held
    alike = np.repeat(GENOMES[:1], 3, axis=0)
    alike[:, FAMILY.space().columns["cache.format"]] = range(3)
    fp32, fp16, int8 = compile_costs(FAMILY, None).predict(alike)["memory"]
    assert fp32 > fp16 > int8


def test_what_the_device_rejects_in_one_scenario_it_cannot_run(profile: DeviceProfile) -> None:
    refused = next(
        layer for layer in profile.table if "cache8" in layer.key() and layer.inputs[0].shape[1] == 1
    )
    table = {**profile.table, refused: Measurement(error="no kernel")}
    values = compile_costs(FAMILY, replace(profile, table=table)).predict(GENOMES)
    broken = np.isinf(values["latency.decode"])
    assert 0 < broken.sum() < len(GENOMES)
    for name in ("latency", "latency.prefill", "latency.decode"):
        np.testing.assert_array_equal(np.isinf(values[name]), broken)
    np.testing.assert_array_equal(values["tokens_per_s"] == 0, broken)


def test_tokens_a_second_are_limited_from_below(profile: DeviceProfile) -> None:
    costs = compile_costs(FAMILY, profile)
    fastest = float(costs.predict(GENOMES)["tokens_per_s"].max())
    worst = worst_costs(FAMILY, costs, seed=0)
    assert worst["tokens_per_s"] < fastest
    targets = Targets((), (objective("tokens_per_s", fastest / 2), objective("latency.decode", 1.0)))
    assert check_reachable(FAMILY, costs, targets, seed=0)["tokens_per_s"] >= fastest * 0.98
    for name, bound in (("tokens_per_s", fastest * 10), ("latency.prefill", 1e-9)):
        with pytest.raises(TrilobitError, match=f"{name} [<>]= .* cannot be met on this device"):
            check_reachable(FAMILY, costs, Targets((), (objective(name, bound),)), seed=0)


def test_limits_in_percent_are_of_the_largest_network(profile: DeviceProfile) -> None:
    config = RunConfig(
        search=SearchSection(objectives=("accuracy", "latency.decode")),
        constraints={"latency.prefill": "60%", "tokens_per_s": "150%"},
    )
    largest = largest_costs(FAMILY, compile_costs(FAMILY, profile))
    bounds = {o.name: o.bound for o in resolve_targets(config, largest).bounded}
    assert bounds["latency.prefill"] == pytest.approx(0.6 * largest["latency.prefill"])
    assert bounds["tokens_per_s"] == pytest.approx(1.5 * largest["tokens_per_s"])


@pytest.mark.parametrize("name", ["latency.decode", "latency.prefill", "tokens_per_s"])
def test_a_scenario_of_a_space_of_images_is_refused(name: str) -> None:
    config = RunConfig(search=SearchSection(objectives=("accuracy", name)), space=SpaceSection("digits-vit"))
    with pytest.raises(TrilobitError, match=f"{name} is known of decoders.*space digits-vit has none"):
        resolve_targets(config, {"latency": 1e-3, "size": 1e5})


def test_an_unknown_scenario_is_an_unknown_objective() -> None:
    with pytest.raises(TrilobitError, match=r"latency.decod.*(did you mean|latency\.decode)"):
        SearchSection(objectives=("accuracy", "latency.decod"))


def test_what_is_asked_for_must_fit_the_positions() -> None:
    assert FAMILY.scenarios == {
        "prefill": {"sequence": 32, "past": 0},
        "decode": {"sequence": 1, "past": 32},
    }
    assert TinyDecoder(64, 64, prompt=64, past=63).scenarios["decode"]["past"] == 63
    with pytest.raises(TrilobitError, match="behind 64 others: the network tells 64 apart; ask for 0 to 63"):
        _ = TinyDecoder(64, 64, past=64).scenarios
    with pytest.raises(TrilobitError, match="a prompt of 65 positions: the network tells 64 apart"):
        _ = TinyDecoder(64, 64, prompt=65).scenarios


def test_a_run_says_what_is_asked_for() -> None:
    assert asked_for(FAMILY) is FAMILY
    assert asked_for(FAMILY, prompt=40, past=50).scenarios == {
        "prefill": {"sequence": 40, "past": 0},
        "decode": {"sequence": 1, "past": 50},
    }
    assert asked_for(FAMILY, past=50).scenarios["prefill"] == FAMILY.scenarios["prefill"]
    with pytest.raises(TrilobitError, match="a prompt of 65 positions"):
        asked_for(FAMILY, prompt=65)
    images = load_family("digits-mbconv", in_channels=1, classes=10)
    with pytest.raises(TrilobitError, match=r"space digits-mbconv has no scenarios .* leave --prefill and"):
        asked_for(images, prompt=8)


def test_random_networks_are_those_of_a_scenario() -> None:
    drawn = random_networks(FAMILY, 2, np.random.default_rng(0), "decode")
    assert set(drawn) == {"fp32", "int8", "mixed"}
    for works in drawn.values():
        for work in works:
            assert work.symbols == {"batch"}
            assert work.feeds[0].type.shape == ("batch", 1)

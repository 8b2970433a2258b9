"""Which units to measure next."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.graph.layer import Layer
from hw_profiles.profiles.profile import DeviceProfile
from predictors.latency.kernels import choose_units, fill, source
from supernet.families.family import Family

SEEDS, ROUNDS = 2, 4


@pytest.fixture(scope="module")
def usage(family: Family) -> Mapping[Layer, float]:
    """How often units occur in random networks."""
    space, counts = family.space(), dict[Layer, float]()
    for genome in space.sample(100, rng=np.random.default_rng(1)):
        for layer in family.workload(space.candidate(genome)).layers:
            counts[layer] = counts.get(layer, 0.0) + 0.01
    return counts


@pytest.fixture(scope="module")
def layers(device_profile: DeviceProfile) -> tuple[Layer, ...]:
    return tuple(device_profile.table)


def measured(profile: DeviceProfile, layers: Sequence[Layer]) -> DeviceProfile:
    """The profile if only these had been measured."""
    return replace(profile, table={layer: profile.table[layer] for layer in layers})


def network_error(filled: DeviceProfile, truth: DeviceProfile, usage: Mapping[Layer, float]) -> float:
    """Mean over units of the absolute error, as often as random networks have the unit."""
    return sum(share * abs(filled.cost_s(layer) - truth.cost_s(layer)) for layer, share in usage.items())


@pytest.mark.parametrize("known", [0, 5, 60])
def test_chosen_are_distinct_and_not_measured_yet(
    device_profile: DeviceProfile, layers: Sequence[Layer], usage: Mapping[Layer, float], known: int
) -> None:
    profile = measured(device_profile, layers[:known])
    chosen = choose_units(layers, profile, 40, rng=np.random.default_rng(0), weights=usage)
    assert len(set(chosen)) == 40
    assert set(chosen) <= set(layers) - set(profile.table)


def test_deterministic_for_a_seed(device_profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    profile = measured(device_profile, layers[::10])
    first, second = (choose_units(layers, profile, 10, rng=np.random.default_rng(4)) for _ in range(2))
    assert first == second


def test_all_that_is_left_when_more_is_asked_for(
    device_profile: DeviceProfile, layers: Sequence[Layer]
) -> None:
    profile = measured(device_profile, layers[3:])
    assert choose_units(layers, profile, 10, rng=np.random.default_rng(0)) == layers[:3]
    assert choose_units(layers, device_profile, 10, rng=np.random.default_rng(0)) == ()
    assert choose_units(layers, profile, 0, rng=np.random.default_rng(0)) == ()


def test_every_kind_is_looked_at_early(
    device_profile: DeviceProfile, layers: Sequence[Layer], usage: Mapping[Layer, float]
) -> None:
    empty = replace(device_profile, table={})
    chosen = choose_units(layers, empty, len(layers) // 10, rng=np.random.default_rng(0), weights=usage)
    kinds = {(layer.depthwise, layer.activation_format) for layer in chosen if layer.kind == "conv"}
    assert len(kinds) == 4
    assert {"quantize", "dequantize"} <= {layer.kind for layer in chosen}


def test_units_that_never_occur_come_last(device_profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    fp32 = {layer: 1.0 for layer in layers if layer.in_format == layer.out_format == "fp32"}
    empty = replace(device_profile, table={})
    chosen = choose_units(layers, empty, 30, rng=np.random.default_rng(0), weights=fp32)
    assert sum(layer in fp32 for layer in chosen) > 20


def test_a_larger_space_is_chosen_from_in_part(
    device_profile: DeviceProfile, layers: Sequence[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predictors.latency.kernels.CONSIDERED", 50)
    empty = replace(device_profile, table={})
    assert len(set(choose_units(layers, empty, 20, rng=np.random.default_rng(0)))) == 20


def test_sources_are_taken_into_account(device_profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    empty = replace(device_profile, table={})
    chosen = choose_units(layers, empty, 20, rng=np.random.default_rng(0), sources=[source(device_profile)])
    assert len(set(chosen)) == 20


@pytest.mark.slow
def test_better_than_random_ones(
    device_profile: DeviceProfile, layers: Sequence[Layer], usage: Mapping[Layer, float]
) -> None:
    ours, random = [], []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        profile = replace(device_profile, table={})
        for _ in range(ROUNDS):
            chosen = choose_units(layers, profile, len(layers) // 30, rng=rng, weights=usage)
            profile = measured(device_profile, [*profile.table, *chosen])
        drawn = [layers[i] for i in rng.permutation(len(layers))[: len(profile.table)]]
        for part, out in ((profile, ours), (measured(device_profile, drawn), random)):
            out.append(network_error(fill(part, layers, rng=rng), device_profile, usage))
    assert np.mean(ours) < 0.9 * np.mean(random)

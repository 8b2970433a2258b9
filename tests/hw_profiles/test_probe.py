"""The algebra of probes: on a device where times add up, rows add up to whole networks, whatever they are."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from hw_profiles.graph.layer import Layer, changed
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.in_context import in_context
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profiler import profile_layers
from predictors.table import distinct_layers
from supernet.families.mbconv import MBConvFamily, Stage
from supernet.families.vit import ViTFamily

STAGES = (Stage(8, 1, (1, 2), (16, 48), (3, 7)), Stage(16, 2, (1, 2), (32, 64), (3, 7)))
FAMILY = MBConvFamily("small", (14, 28), 8, STAGES, 16, in_channels=1, classes=10)
LAYERS = distinct_layers(FAMILY.space(), FAMILY.terms())
PLAN = MeasurePlan(rounds=1)
ROUNDING_S = 1e-9  # samples are stored in whole picoseconds, and a network has some 50 rows

Secret = Callable[[Layer], float]


@cache
def works() -> list[Workload]:
    space = FAMILY.space()
    genomes = space.sample(200, rng=np.random.default_rng(0))
    return [FAMILY.workload(space.candidate(genome)) for genome in genomes]


def same_both_ways(secret_s: Secret) -> Secret:
    """Quantizing costs as much as dequantizing: what fixes the one constant that measuring leaves open."""

    def cost_s(layer: Layer) -> float:
        return secret_s(changed(layer, kind="quantize") if layer.kind == "dequantize" else layer)

    return cost_s


def profiled(backend, emit, layers=LAYERS) -> DeviceProfile:
    *_, profile = profile_layers(
        backend, DeviceProfile(backend.describe(), PLAN), layers, emit=emit, rng=np.random.default_rng(0)
    )
    return profile


def offsets_s(backend, profile: DeviceProfile, networks: list[Workload]) -> np.ndarray:
    """What the sum of rows lacks, network by network."""
    return np.array([backend.network_s(work) - sum(map(profile.cost_s, work.layers)) for work in networks])


def balanced(work: Workload) -> bool:
    """Whether every conversion has a counterpart in the same context: none on a shortcut or a 1 x 1 map."""
    lone = (layer for layer in work.layers if layer.kind in ("quantize", "dequantize"))
    small = any(layer.in_shape[1:] == (1, 1) for layer in lone)
    return not small and all(layer.kind != "add_converted" for layer in work.layers)


def test_rows_add_up_to_whole_networks(backend, no_onnx) -> None:
    backend.secret_s = same_both_ways(backend.secret_s)
    offsets = offsets_s(backend, profiled(backend, no_onnx), works())
    assert offsets == pytest.approx(offsets[0], abs=ROUNDING_S)
    assert np.ptp([backend.network_s(work) for work in works()]) > 1e5 * ROUNDING_S


def test_rows_of_transformers_add_up_to_whole_networks(backend, no_onnx) -> None:
    sizes = {"patch": 4, "widths": (8, 16), "depths": (1, 2), "heads": (1, 2), "head_width": 4}
    family = ViTFamily("small", (8, 16), percents=(100, 200), in_channels=1, classes=10, **sizes)
    backend.secret_s = same_both_ways(backend.secret_s)
    space, layers = family.space(), distinct_layers(family.space(), family.terms())
    profile = profiled(backend, no_onnx, layers)
    rows = space.sample(40, rng=np.random.default_rng(0))
    networks = [family.workload(space.candidate(row)) for row in rows]
    offsets = offsets_s(backend, profile, networks)
    assert offsets == pytest.approx(offsets[0], abs=ROUNDING_S)


def test_rows_of_balanced_networks_add_up_even_where_the_two_conversions_differ(backend, no_onnx) -> None:
    chosen = [work for work in works() if balanced(work)]
    offsets = offsets_s(backend, profiled(backend, no_onnx), chosen)
    assert len(chosen) >= 5
    assert offsets == pytest.approx(offsets[0], abs=ROUNDING_S)


def test_rows_of_fp32_layers_are_their_costs(backend, no_onnx) -> None:
    profile = profiled(backend, no_onnx)
    convolutions = [layer for layer in LAYERS if layer.kind == "conv" and layer.activation_format == "fp32"]
    for layer in convolutions:
        assert profile.cost_s(layer) == pytest.approx(backend.secret_s(layer), abs=ROUNDING_S)


def test_both_directions_of_a_conversion_have_equal_rows(backend, no_onnx) -> None:
    profile = profiled(backend, no_onnx)
    for layer in LAYERS:
        if layer.kind == "quantize" and layer.in_shape[1] > 1:
            back = changed(layer, kind="dequantize")
            assert back not in profile.table or profile.cost_s(back) == pytest.approx(
                profile.cost_s(layer), abs=ROUNDING_S
            )


@pytest.mark.parametrize("op", sorted({layer.kind for layer in LAYERS}))
def test_every_probe_contains_its_layer(op: str) -> None:
    for layer in LAYERS:
        if layer.kind == op:
            assert any(layer in work.layers for factor, work in in_context(layer).workloads if factor > 0)

"""The learned scales: what has them, how they begin, and what they say to a device."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.lowering import lower
from supernet.families.family import Family, load_family
from supernet.formats.loading import load_activation_format
from supernet.graph.executor import layered, sized_layer, tensor_keys
from supernet.qat.double_rounding import requantized
from supernet.qat.learned import (
    LearnedQuantizers,
    Structure,
    TensorKind,
    find_structure,
    integer_extremes,
    least_error,
    observed_tensors,
    tensor_kinds,
)

ACTIVATIONS = ("int4", "int6", "int8")


@pytest.mark.parametrize("name", ["digits-mbconv", "apq-proxyless", "ofa-mbv3", "ofa-resnet50"])
def test_every_policy_finds_its_scales(name: str) -> None:
    formats = None if name == "apq-proxyless" else ("fp32", "int8", "int4/int6")
    family = load_family(name, in_channels=3, classes=10, formats=formats)
    structure, space = find_structure(family), family.space()
    corners = [lower(family.workload(candidate)) for candidate in integer_extremes(family)]
    assert {key for work in corners for key in tensor_keys(work)} - {None} == set(structure.tensors)
    for row in space.sample(40, rng=np.random.default_rng(7)):
        work = lower(family.workload(space.candidate(row)))
        for layer, key in zip(work.layers, tensor_keys(work), strict=True):
            if key is not None:
                assert key in structure.tensors
                assert layer.out_format in structure.formats
        for layer_name, layer in zip(work.names, work.layers, strict=True):
            if layer.weighted:
                assert structure.weights[layer_name].out_channels >= layer.out_channels


def test_structure_does_not_depend_on_what_was_drawn(digits: Family, structure: Structure) -> None:
    assert find_structure(digits) == structure
    assert structure.formats == ACTIVATIONS


def test_kinds_of_tensors_follow_from_their_layers() -> None:
    net = WorkloadBuilder((4, 6, 6))
    fmt = {"weight_format": "int8", "activation_format": "int8"}
    a = net.add("relu", map_layer("conv", (4, 6, 6), 4, activation="relu", **fmt), INPUT)
    b = net.add("relu6", map_layer("conv", (4, 6, 6), 4, activation="relu6", **fmt), a)
    c = net.add("linear", map_layer("conv", (4, 6, 6), 4, **fmt), b)
    both = net.add("sum", map_layer("add", (4, 6, 6), 4, activation_format="int8"), a, b)
    one = net.add("mixed", map_layer("add", (4, 6, 6), 4, activation_format="int8"), both, c)
    net.add("pool", map_layer("pool", (4, 6, 6), 4, activation_format="int8"), both)
    net.add("curve", map_layer("conv", (4, 6, 6), 4, activation="hswish", **fmt), one)
    positive, signed = TensorKind(unsigned=True), TensorKind(unsigned=False)
    assert tensor_kinds(lower(net.build())) == {
        "image": signed,
        "relu": positive,
        "relu6": TensorKind(unsigned=True, end=6.0),
        "linear": signed,
        "sum": positive,
        "mixed": signed,
        "pool": positive,
        "curve": signed,
        "curve.hswish": signed,
    }


def test_codes_behind_a_relu_begin_with_zero_and_those_of_a_relu6_end_at_six() -> None:
    kinds = {"a": TensorKind(unsigned=True), "b": TensorKind(unsigned=True, end=6.0), "c": TensorKind(False)}
    quantizers = LearnedQuantizers(Structure({}, kinds, ("int6",)))
    assert set(quantizers.offsets) == {"c:int6"}
    with torch.no_grad():
        for parameter in quantizers.parameters():
            parameter.fill_(1.0)  # a scale of e, an offset of 1
    assert quantizers.params("a", "int6").zero_point == 0
    assert quantizers.params("b", "int6").scale * 63 <= 6.0 + 1e-5
    assert quantizers.params("c", "int6").zero_point == 0  # clipped: no code stands for a negative number


@pytest.mark.parametrize("fmt", ACTIVATIONS)
def test_what_is_set_is_what_a_device_is_told(
    quantizers: LearnedQuantizers, structure: Structure, fmt: str
) -> None:
    fresh = LearnedQuantizers(structure)
    signed = next(key for key, kind in structure.tensors.items() if not kind.unsigned)
    params = load_activation_format(fmt).params(-1.3, 2.9)
    fresh.set_tensor(signed, fmt, params)
    found = fresh.params(signed, fmt)
    assert (found.zero_point, found.largest) == (params.zero_point, params.largest)
    assert found.scale == pytest.approx(params.scale, rel=1e-6)


def test_a_range_of_least_error_beats_the_whole_range() -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_t(3, 20000).astype(np.float32))

    def error(params: object) -> float:
        codes = (torch.round(values / params.scale) + params.zero_point).clamp(0, params.largest)
        return float((((codes - params.zero_point) * params.scale - values) ** 2).mean())

    for fmt, gain in (("int4", 4.0), ("int8", 1.0)):
        whole = load_activation_format(fmt).params(float(values.min()), float(values.max()))
        assert error(least_error(values, fmt)) <= error(whole) / gain


@torch.no_grad()
def test_observed_tensors_are_those_of_the_extracted_network(
    digits: Family, supernet: nn.Module, pixels: Callable[..., Tensor]
) -> None:
    candidate = digits.extremes()["largest/int8"]
    x = pixels(candidate, 16)
    subnet = digits.extract(supernet, candidate).train()
    expected = dict(zip(subnet.workload.names, subnet.tensors(x), strict=True))
    found = observed_tensors(layered(supernet), digits.workload(candidate), x)
    assert set(found) == {*expected, "image"} - {"classifier"}
    for key in ("s0.b0.add", "s1.b2.project", "head", "pool"):
        low, high = torch.aminmax(expected[key])
        assert float(found[key].min()) == pytest.approx(float(low), rel=1e-4, abs=1e-6)
        assert float(found[key].max()) == pytest.approx(float(high), rel=1e-4)


@torch.no_grad()
def test_widths_of_a_layer_are_nested_in_its_stored_codes(
    supernet: nn.Module, quantizers: LearnedQuantizers, structure: Structure
) -> None:
    for name in ("stem", "s1.b0.depthwise", "classifier"):
        weight = sized_layer(layered(supernet).layer(name), structure.weights[name]).weight
        stored, scale = quantizers.codes(name, weight, "int8")
        for fmt, bits in (("int6", 6), ("int4", 4), ("int2", 2)):
            codes, wider = quantizers.codes(name, weight, fmt)
            assert torch.equal(codes, requantized(stored, bits))
            torch.testing.assert_close(wider, scale * 2 ** (8 - bits))
            real = codes * wider.view(-1, *(1,) * (weight.ndim - 1))
            torch.testing.assert_close(quantizers.weight(name, weight, fmt), real)


def test_scales_survive_a_checkpoint(quantizers: LearnedQuantizers, structure: Structure) -> None:
    again = LearnedQuantizers(structure)
    again.load_state_dict(quantizers.state_dict())
    assert again.params("head", "int8") == quantizers.params("head", "int8")
    assert (
        again.weight("stem", torch.ones(structure.weights["stem"].out_channels, 1, 3, 3), "fp32").eq(1).all()
    )

"""A workload run on the supernet's own layers, against extracted subnets and itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, map_layer
from hw_profiles.graph.lowering import lower
from supernet.families.family import Family
from supernet.graph.executor import (
    IMAGE,
    Unquantized,
    batch_normalised,
    forward,
    layered,
    recalibrated,
    run,
    sized_layer,
    tensor_keys,
)
from supernet.graph.subnet import recalibrate
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate

SUMS = 1e-5  # of the largest logit: float32 sums in another order
Draw = Callable[..., Tensor]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = SUMS) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@torch.no_grad()
def test_in_fp32_it_is_the_recalibrated_subnet(
    digits: Family, supernet: nn.Module, drawn: list[Candidate], pixels: Draw
) -> None:
    for candidate in drawn:
        batches = [pixels(candidate, 16, seed) for seed in (1, 2)]
        subnet = digits.extract(supernet, candidate)
        recalibrate(subnet, batches)
        work = digits.plain_workload(digits.arch(candidate))
        statistics = recalibrated(layered(supernet), Unquantized(), work, batches)
        x = pixels(candidate, 8, 3)
        found = forward(layered(supernet), Unquantized(), work, x, statistics=statistics)
        assert_close(found, subnet(x))


@torch.no_grad()
def test_extracted_subnets_run_as_the_supernet_does(
    digits: Family,
    supernet: nn.Module,
    quantizers: LearnedQuantizers,
    drawn: list[Candidate],
    pixels: Draw,
) -> None:
    for candidate in drawn:
        x, work = pixels(candidate, 8), digits.workload(candidate)
        subnet = digits.extract(supernet, candidate)
        elastic = forward(layered(supernet), quantizers, work, x)
        assert_close(forward(subnet, quantizers, work, x), elastic)


@torch.no_grad()
def test_policies_leave_nothing_behind(
    digits: Family,
    supernet: nn.Module,
    quantizers: LearnedQuantizers,
    drawn: list[Candidate],
    pixels: Draw,
) -> None:
    """Switching needs no copy of the network, and no trace of one policy is in the next."""
    corner = digits.extremes()["largest/fp32"]
    x = pixels(corner, 4)
    before = {n: (t.data_ptr(), t.clone()) for n, t in supernet.state_dict().items()}
    outputs = {}
    for fmt in ("fp32", "int8", "int4", "int2", "int8", "fp32"):
        y = forward(layered(supernet), quantizers, digits.workload(digits.extremes()[f"largest/{fmt}"]), x)
        assert torch.equal(outputs.setdefault(fmt, y), y)
    assert len({tuple(y.flatten().tolist()) for y in outputs.values()}) == len(outputs)
    for name, tensor in supernet.state_dict().items():
        pointer, value = before[name]
        assert tensor.data_ptr() == pointer
        assert torch.equal(tensor, value)


@torch.no_grad()
def test_fewer_bits_are_further_from_fp32(
    digits: Family, supernet: nn.Module, quantizers: LearnedQuantizers, pixels: Draw
) -> None:
    corners = digits.extremes()
    x = pixels(corners["smallest/fp32"], 64)
    logits = {
        fmt: forward(layered(supernet), quantizers, digits.workload(corners[f"smallest/{fmt}"]), x)
        for fmt in ("fp32", "int8", "int6", "int4", "int2")
    }
    exact = logits.pop("fp32")
    errors = [float((y - exact).norm() / exact.norm()) for y in logits.values()]
    assert errors == sorted(errors)
    assert errors[0] < 0.15


@torch.no_grad()
def test_every_tensor_and_weight_is_on_its_grid(
    digits: Family,
    supernet: nn.Module,
    quantizers: LearnedQuantizers,
    drawn: list[Candidate],
    pixels: Draw,
) -> None:
    """At the points where the file has integers, values are multiples of the scale within the codes."""
    for candidate in drawn[:3]:
        work = digits.workload(candidate)
        tensors = run(layered(supernet), quantizers, work, pixels(candidate, 4), batch_normalised)
        for layer, key, tensor in zip(work.layers, tensor_keys(work), tensors, strict=True):
            if key is not None:
                params = quantizers.params(key, layer.out_format)
                codes = tensor / params.scale + params.zero_point
                torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
                assert 0 <= float(codes.round().min()) <= float(codes.round().max()) <= params.largest


def test_gradients_reach_weights_and_the_scales_of_the_policy_only(
    digits: Family, supernet: nn.Module, quantizers: LearnedQuantizers, pixels: Draw
) -> None:
    candidate = digits.extremes()["largest/int4/int4"]
    supernet.zero_grad()
    quantizers.zero_grad()
    forward(
        layered(supernet), quantizers, digits.workload(candidate), pixels(candidate, 8)
    ).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in supernet.parameters())
    reached = {name for name, p in quantizers.named_parameters() if p.grad is not None}
    named = dict(quantizers.named_parameters())
    assert reached == {n for n in named if n.startswith("weight_scales") or n.endswith(":int4")}
    supernet.zero_grad()
    quantizers.zero_grad()


def pointwise(fmt: str, activation: str = "none") -> Layer:
    return map_layer("conv", (4, 5, 5), 4, 1, 1, 1, activation, fmt, fmt)


def keys_of(*layers: Layer) -> dict[str, str | None]:
    net, x = WorkloadBuilder((4, 5, 5)), INPUT
    for i, layer in enumerate(layers):
        x = net.add(f"l{i}", layer, x)
    work = lower(net.build())
    return dict(zip(work.names, tensor_keys(work), strict=True))


def test_a_tensor_has_one_key_whoever_rounds_it() -> None:
    both = keys_of(pointwise("int8"), pointwise("int8"))
    assert both == {"input.quantize": IMAGE, "l0": "l0", "l1": "l1"}
    mixed = keys_of(pointwise("fp32"), pointwise("int8"), pointwise("int6"))
    assert mixed["l0"] is None
    assert mixed["l0.quantize"] == "l0"
    assert mixed["l1.dequantize"] is None
    assert mixed["l1.quantize"] == "l1"


def test_curves_have_a_tensor_before_and_one_behind() -> None:
    integer = keys_of(pointwise("int8", "hswish"), pointwise("int8"))
    assert (integer["l0"], integer["l0.hswish"]) == ("l0", "l0.hswish")
    fused = keys_of(pointwise("fp32", "hswish"), pointwise("int8"))
    assert fused["l0.quantize"] == "l0.hswish"


def test_choosing_among_codes_keeps_their_key() -> None:
    pooled = map_layer("maxpool", (4, 5, 5), 4, 3, 2, activation_format="int8")
    found = keys_of(pointwise("int8"), pooled)
    assert found["l0"] == found["l1"] == "l0"


def test_networks_and_layers_that_cannot_run_are_named(quantizers: LearnedQuantizers) -> None:
    with pytest.raises(TrilobitError, match=r"Linear cannot run quantized: it needs a method layer\(name\)"):
        layered(nn.Linear(1, 1))
    with pytest.raises(TypeError, match="Sequential is not registered"):
        sized_layer(nn.Sequential(), pointwise("fp32"))

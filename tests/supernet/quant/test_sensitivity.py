"""Hutchinson's traces against the exact Hessian, and the allocation against every assignment."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.workload import Workload
from supernet.layers.plain import PlainConv
from supernet.qat.learned import LearnedQuantizers, Structure
from supernet.qat.lsq import initial_weight_scale
from supernet.sensitivity.hessian import allocate, hessian_traces, largest_layers, rounding_errors


class TwoLayers:
    """A convolution and a classifier, small enough for the whole Hessian."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.layers = {"conv": PlainConv(2, 3, activation="hswish"), "linear": nn.Linear(3, 4)}
        for layer in self.layers.values():
            for parameter in layer.parameters():
                nn.init.normal_(parameter, generator=generator)

    def layer(self, name: str) -> nn.Module:
        return self.layers[name]

    def workload(self) -> Workload:
        net = WorkloadBuilder((2, 3, 3))
        x = net.add("conv", map_layer("conv", (2, 3, 3), 3, activation="hswish"), INPUT)
        x = net.add("pool", map_layer("pool", (3, 3, 3), 3), x)
        net.add("linear", map_layer("linear", (3, 1, 1), 4), x)
        return net.build()


def exact_trace(net: TwoLayers, name: str, x: Tensor, labels: Tensor) -> float:
    """Mean of the diagonal of the Hessian."""

    def loss(flat: Tensor) -> Tensor:
        conv, linear = net.layers["conv"].conv, net.layers["linear"]
        weights = {"conv": conv.weight, "linear": linear.weight}
        weights[name] = flat.view_as(weights[name])
        y = nn.functional.hardswish(nn.functional.conv2d(x, weights["conv"], conv.bias)).mean((2, 3))
        logits = nn.functional.linear(y, weights["linear"], linear.bias)
        return nn.functional.cross_entropy(logits, labels)

    weight = net.layers[name].conv.weight if name == "conv" else net.layers[name].weight
    hessian = torch.autograd.functional.hessian(loss, weight.detach().flatten())
    return float(hessian.diagonal().mean())


def test_traces_are_those_of_the_exact_hessian() -> None:
    net, generator = TwoLayers(), torch.Generator().manual_seed(1)
    x, labels = torch.randn(8, 2, 3, 3, generator=generator), torch.arange(8) % 4
    found = hessian_traces(net, net.workload(), x, labels, probes=600, seed=0)
    assert list(found) == ["conv", "linear"]
    for name, trace in found.items():
        assert trace == pytest.approx(exact_trace(net, name, x, labels), rel=0.15)
    assert found == hessian_traces(net, net.workload(), x, labels, probes=600, seed=0)
    assert all(p.grad is None for layer in net.layers.values() for p in layer.parameters())


def test_rounding_errors_fall_by_a_factor_of_sixteen_with_two_bits_more() -> None:
    net = TwoLayers()
    net.layers["conv"] = PlainConv(64, 32)
    layers = largest_layers(net.workload())
    layers["conv"] = map_layer("conv", (64, 3, 3), 32)
    quantizers = LearnedQuantizers(Structure(layers, {}, ()))
    with torch.no_grad():
        for name, slot in quantizers.weight_scales.items():
            layer = net.layers[name]
            slot.copy_(initial_weight_scale(layer.conv.weight if name == "conv" else layer.weight).log())
    errors = [rounding_errors(net, quantizers, layers, bits)["conv"] for bits in (8, 6, 4, 2)]
    assert errors == sorted(errors)
    assert 12 < errors[2] / errors[1] < 20


@given(st.data())
def test_the_allocation_is_the_cheapest_of_all(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 5))
    sets = st.lists(st.sampled_from((2, 4, 6, 8)), min_size=1, max_size=4, unique=True)
    widths = [data.draw(sets) for _ in range(layers)]
    costs = [[data.draw(st.floats(0, 10)) for _ in options] for options in widths]
    total = data.draw(st.integers(layers, 8 * layers))
    every = [
        (sum(costs[i][c] for i, c in enumerate(chosen)), chosen)
        for chosen in itertools.product(*(range(len(options)) for options in widths))
        if sum(widths[i][c] for i, c in enumerate(chosen)) == total
    ]
    if not every:
        with pytest.raises(ValueError, match="no choice of widths adds up"):
            allocate(widths, costs, total)
        return
    found = allocate(widths, costs, total)
    assert sum(widths[i][c] for i, c in enumerate(found)) == total
    assert sum(costs[i][c] for i, c in enumerate(found)) == pytest.approx(min(every)[0])


def test_many_layers_are_allocated_exactly() -> None:
    """Twice as sensitive layers get no fewer bits; the average is met."""
    traces = np.arange(1, 51, dtype=float)
    widths = [(8, 6, 4, 2)] * 50
    costs = [[t * 4.0 ** (8 - b) for b in (8, 6, 4, 2)] for t in traces]
    found = np.array([widths[0][c] for c in allocate(widths, costs, 250)])
    assert found.sum() == 250
    assert (np.diff(found) >= 0).all()

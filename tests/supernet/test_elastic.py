"""Elastic layers: narrow channels are prefixes, small kernels centre crops of the largest."""

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.graph.builder import DEPTHWISE, GraphBuilder
from hw_profiles.graph.layer import map_layer
from supernet.derive.network import ElasticNet, static_layer
from supernet.layers.elastic import ElasticConvNorm

ROUNDING = 1e-5  # sums of some hundred float32 products in another order
EPSILON = 1e-3  # batch norm adds 1e-5 to variances, which are above 0.1 here


def layer(*, seed: int = 0, depthwise: bool = False) -> ElasticConvNorm:
    """8 to 12 channels, kernel 7, all numbers drawn."""
    made = ElasticConvNorm(8, 12, 7, depthwise=depthwise)
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(made.weight, std=0.1, generator=generator)
    for tensor in (made.norm.weight, made.norm.bias, made.norm.running_mean, made.norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
    return made.eval()


def run(
    elastic: ElasticConvNorm,
    x: torch.Tensor,
    width: int,
    kernel: int,
    stride: int = 1,
    activation: str = "relu",
) -> torch.Tensor:
    """What a network of this one layer gives at some of its sizes."""
    net = GraphBuilder(x.shape[1:])
    groups = DEPTHWISE if elastic.depthwise else 1
    net.conv("one", net.input, width, kernel=kernel, stride=stride, groups=groups, activation=activation)
    output: torch.Tensor = ElasticNet({"one": elastic}).train(elastic.training)(x, net.build())
    return output


def image(channels: int, size: int = 9) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_a_small_kernel_is_the_largest_with_its_border_at_zero(
    kernel: int, stride: int, depthwise: bool
) -> None:
    elastic, x = layer(depthwise=depthwise), image(12 if depthwise else 8)
    with torch.no_grad():
        found = run(elastic, x, 12, kernel, stride)
        edge = (7 - kernel) // 2
        border = torch.ones(7, 7, dtype=torch.bool)
        border[edge : 7 - edge, edge : 7 - edge] = False
        elastic.weight[..., border] = 0
        whole = run(elastic, x, 12, 7, stride)
    assert found.shape == (2, 12, *(-(-9 // stride),) * 2)
    torch.testing.assert_close(found, whole, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("depthwise", [False, True])
def test_narrow_outputs_are_the_first_channels(depthwise: bool) -> None:
    elastic, x = layer(depthwise=depthwise), image(12 if depthwise else 8)
    with torch.no_grad():
        wide = run(elastic, x, 12, 5)
        narrow = run(elastic, x[:, :6] if depthwise else x, 6, 5)
    torch.testing.assert_close(narrow, wide[:, :6], rtol=0, atol=ROUNDING)


def test_narrow_inputs_are_wide_ones_with_the_rest_at_zero() -> None:
    elastic, x = layer(), image(8)
    with torch.no_grad():
        narrow = run(elastic, x[:, :5], 12, 3)
        x[:, 5:] = 0
        torch.testing.assert_close(narrow, run(elastic, x, 12, 3), rtol=0, atol=ROUNDING)


def test_training_normalises_each_channel_over_the_batch() -> None:
    elastic = layer().train()
    with torch.no_grad():
        y = run(elastic, image(8, size=16), 6, 3, activation="none")
        torch.testing.assert_close(y.mean((0, 2, 3)), elastic.norm.bias[:6], rtol=0, atol=ROUNDING)
        spread = y.std((0, 2, 3), correction=0)
        torch.testing.assert_close(spread, elastic.norm.weight[:6], rtol=EPSILON, atol=0)


def test_a_relu_comes_last() -> None:
    with torch.no_grad():
        rectified, plain = (run(layer(), image(8), 6, 3, activation=name) for name in ("relu", "none"))
    assert plain.min() < 0
    assert torch.equal(rectified, plain.clamp(min=0))


def test_folding_changes_nothing() -> None:
    spec = map_layer("conv", (8, 9, 9), 6, 5)
    static, x = static_layer(layer(), spec).eval(), image(8)
    with torch.no_grad():
        weight, bias = static.folded()
        folded = nn.functional.conv2d(x, weight, bias, padding=2)
        torch.testing.assert_close(folded, static(x), rtol=0, atol=ROUNDING)
    assert not np.allclose(weight.numpy(), static.conv.weight.detach().numpy())

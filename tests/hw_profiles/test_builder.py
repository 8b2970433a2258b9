"""`GraphBuilder` appends the layers that profiles know, with the conversions between them."""

from typing import NamedTuple

import pytest

from hw_profiles.graph.builder import DEPTHWISE, GraphBuilder


class Formats(NamedTuple):
    """Stands for what a family chooses for a layer."""

    weight: str
    activation: str


def test_layers_have_the_keys_that_profiles_know() -> None:
    net = GraphBuilder((3, 32, 32))
    x = net.stem("stem", net.input, 16, stride=2, activation="relu")
    y = net.conv("expand", x, 64, activation="relu", precision="int8")
    y = net.conv("depthwise", y, 64, kernel=5, groups=DEPTHWISE, precision=Formats("int4", "int8"))
    y = net.conv("project", y, 16, precision="int8")
    y = net.add("add", y, x)
    y = net.mul("scale", y, net.global_pool("mean", y))
    y = net.max_pool("max", y, 3, 2)
    y = net.avg_pool("halved", y, 2, 2)
    y = net.inverted_residual("block", y, 16, kernel=3, expanded=48, squeeze=True, residual=True)
    net.linear("classifier", net.global_pool("pool", y, precision="int8"), 10, precision="int8")
    work = net.build()
    assert {name: layer.key() for name, layer in zip(work.names, work.layers, strict=True)} == {
        "stem": "stem 3x32x32>16 k3s2g1 relu w=fp32 a=fp32",
        "stem.quantize": "quantize 16x16x16>16 k1s1g1 none w=fp32 a=int8",
        "expand": "conv 16x16x16>64 k1s1g1 relu w=int8 a=int8",
        "depthwise": "conv 64x16x16>64 k5s1g64 none w=int4 a=int8",
        "project": "conv 64x16x16>16 k1s1g1 none w=int8 a=int8",
        "add": "add_converted 16x16x16>16 k1s1g1 none w=fp32 a=int8",
        "mean": "pool 16x16x16>16 k1s1g1 none w=fp32 a=int8",
        "scale": "mul 16x16x16>16 k1s1g1 none w=fp32 a=int8",
        "max": "maxpool 16x16x16>16 k3s2g1 none w=fp32 a=int8",
        "halved": "avgpool 16x8x8>16 k2s2g1 none w=fp32 a=int8",
        "halved.dequantize": "dequantize 16x4x4>16 k1s1g1 none w=fp32 a=int8",
        "block": "mbconv 16x4x4>16 k3s1g1 relu w=fp32 a=fp32 e48+se+id",
        "block.quantize": "quantize 16x4x4>16 k1s1g1 none w=fp32 a=int8",
        "pool": "pool 16x4x4>16 k1s1g1 none w=fp32 a=int8",
        "classifier": "linear 16x1x1>10 k1s1g1 none w=int8 a=int8",
    }


def test_a_sum_of_equal_formats_converts_nothing() -> None:
    net = GraphBuilder((8, 4, 4), "int8")
    net.add("add", net.conv("conv", net.input, 8, precision="int8"), net.input, activation="relu")
    assert [layer.kind for layer in net.build().layers] == ["conv", "add"]


def test_averages_of_overlapping_windows_are_refused() -> None:
    net = GraphBuilder((8, 4, 4))
    with pytest.raises(ValueError, match="windows of 3 at a stride of 2"):
        net.avg_pool("pool", net.input, 3, 2)

"""Layers and workloads: identity, shapes, counts against torch, and the conversions between formats."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.conversions import conversion, conversions
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.key import KINDS
from hw_profiles.graph.layer import INPUT, Layer, changed, map_layer, parse_key
from hw_profiles.graph.workload import Workload
from supernet.families.family import load_family
from supernet.graph.subnet import Subnet

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
CONV = map_layer("conv", (8, 7, 7), 16, kernel=3)

sizes = st.integers(1, 512)
maps = st.tuples(sizes, sizes, sizes)
formats = st.sampled_from(("fp32", "int8", "int6", "int4"))
activations = st.sampled_from(("none", "relu", "hswish"))
window = (st.sampled_from((1, 3, 5, 7)), st.integers(1, 4))


@st.composite
def plain(draw: st.DrawFn) -> Layer:
    kind = draw(st.sampled_from([kind for kind in KINDS if kind != "mbconv"]))
    (channels, height, width), fields = draw(maps), dict[str, object]()
    out = draw(sizes) if kind in ("stem", "conv", "linear") else channels
    if kind in ("stem", "conv", "maxpool"):
        fields = dict(zip(("kernel", "stride"), draw(st.tuples(*window)), strict=True))
    if kind == "avgpool":
        fields = dict.fromkeys(("kernel", "stride"), draw(st.integers(1, 3)))
    if kind == "conv" and draw(st.booleans()):
        fields["groups"] = out = channels
    shape = (channels, 1, 1) if kind == "linear" else (channels, height, width)
    activation = "hsigmoid" if kind == "act" else draw(activations)
    formats_of_it = {"weight_format": draw(formats), "activation_format": draw(formats)}
    return map_layer(kind, shape, out, activation=activation, **formats_of_it, **fields)  # type: ignore[arg-type]


blocks = st.builds(
    map_layer,
    *(st.just("mbconv"), maps, sizes, *window, st.just(1), activations, formats, formats),
    *(sizes, st.booleans(), st.booleans()),
)
layers = plain() | blocks


@given(layers)
def test_key_and_parse_key_are_inverse(layer: Layer) -> None:
    assert parse_key(layer.key()) == layer


@given(layers, layers)
def test_keys_are_equal_exactly_where_layers_are(one: Layer, other: Layer) -> None:
    assert (one.key() == other.key()) == (one == other)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "conv",
        CONV.key() + " ",
        CONV.key().replace("conv", "blend"),
        CONV.key().replace("8x7x7", "8x7"),
        CONV.key().replace("k3", "k03"),
        CONV.key().replace(">16", ">0"),
    ],
)
def test_what_key_did_not_write_is_refused(key: str) -> None:
    with pytest.raises(TrilobitError, match=r"not a layer key|unknown kind|at least 1"):
        parse_key(key)


def test_impossible_layers_are_refused() -> None:
    with pytest.raises(TrilobitError, match="unknown kind of layer 'blend'; known: stem, conv"):
        changed(CONV, kind="blend")
    with pytest.raises(TrilobitError, match="at least 1"):
        changed(CONV, stride=0)


@given(
    channels=st.integers(1, 6),
    size=st.integers(1, 9),
    out_channels=st.integers(1, 6),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
    depthwise=st.booleans(),
)
def test_shapes_and_counts_of_a_convolution_are_torchs(
    channels: int, size: int, out_channels: int, kernel: int, stride: int, depthwise: bool
) -> None:
    groups, out_channels = (channels, channels) if depthwise else (1, out_channels)
    layer = map_layer("conv", (channels, size, size), out_channels, kernel, stride, groups)
    module = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups)
    out = module(torch.zeros(1, *layer.in_shape))
    assert tuple(out.shape[1:]) == layer.out_shape
    assert params(layer) == sum(p.numel() for p in module.parameters())
    assert macs(layer) == out.numel() * module.weight[0].numel()


def hooked_macs(subnet: Subnet, image: Tensor) -> int:
    """Multiply-adds counted from what the modules really compute."""
    counted = []

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        counted.append(out.numel() * module.weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in subnet.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    subnet(image)
    for hook in hooks:
        hook.remove()
    return sum(counted)


def folded_params(subnet: Subnet) -> int:
    """Weights, and one bias for every output channel."""
    weighted = [m for m in subnet.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum(module.weight.numel() + len(module.weight) for module in weighted)


@torch.no_grad()
def test_counts_of_a_network_are_those_of_the_extracted_subnet() -> None:
    space, net = FAMILY.space(), FAMILY.supernet(rng=np.random.default_rng(0)).eval()
    for genome in space.sample(5, rng=np.random.default_rng(1)):
        candidate = space.candidate(genome)
        work, subnet = FAMILY.workload(candidate), FAMILY.extract(net, candidate).eval()
        assert sum(map(macs, work.layers)) == hooked_macs(subnet, torch.zeros(1, *work.in_shape))
        assert sum(map(params, work.layers)) == folded_params(subnet)


# -- workloads and their builder --------------------------------------------------------------------


def pointwise(fmt: str, channels: int = 4) -> Layer:
    return map_layer("conv", (channels, 5, 5), channels, weight_format=fmt, activation_format=fmt)


def ops(work: Workload) -> list[str]:
    return [layer.kind for layer in work.layers]


def test_neighbours_of_one_format_need_no_conversion() -> None:
    net = WorkloadBuilder((4, 5, 5))
    net.add("b", pointwise("fp32"), net.add("a", pointwise("fp32"), INPUT))
    assert ops(net.build()) == ["conv", "conv"]
    assert conversion((4, 5, 5), "int8", "int8") == ()


def test_the_image_is_quantized_for_an_integer_layer() -> None:
    net = WorkloadBuilder((4, 5, 5))
    net.add("a", pointwise("int8"), INPUT)
    work = net.build()
    assert (ops(work), work.names[0]) == (["quantize", "conv"], "input.quantize")


def test_a_tensor_is_quantized_once_and_dequantized_for_each_reader() -> None:
    for source, readers, boundaries in (("fp32", "int8", 1), ("int8", "fp32", 2)):
        net = WorkloadBuilder((4, 5, 5))
        x = net.add("x", pointwise(source), INPUT)
        for name in ("a", "b"):
            net.add(name, pointwise(readers), x)
        conversions = [i for i in net.build().inputs if i == (x,)]
        assert len(conversions) == boundaries


@given(st.lists(formats, min_size=1, max_size=8))
def test_a_chain_has_one_conversion_for_every_change_from_or_to_fp32(chain: list[str]) -> None:
    net, x = WorkloadBuilder((4, 5, 5)), INPUT
    for i, fmt in enumerate(chain):
        x = net.add(f"layer{i}", pointwise(fmt), x)
    pairs = list(zip(["fp32", *chain], chain, strict=False))
    changes = sum((one != "fp32") + (other != "fp32") for one, other in pairs if one != other)
    assert len(net.build().layers) == len(chain) + changes


def test_integers_convert_into_each_other_through_fp32() -> None:
    first, second = conversion((4, 5, 5), "int8", "int4")
    assert (first.kind, first.in_format, first.out_format) == ("dequantize", "int8", "fp32")
    assert (second.kind, second.in_format, second.out_format) == ("quantize", "fp32", "int4")


@given(found=formats, readers=st.lists(formats, max_size=4))
def test_conversions_are_those_that_the_builder_sets(found: str, readers: list[str]) -> None:
    net = WorkloadBuilder((4, 5, 5))
    x = net.add("x", pointwise(found), INPUT)
    for i, fmt in enumerate(readers):
        net.add(f"reader{i}", pointwise(fmt), x)
    boundaries = [layer for layer in net.build().layers[x + 1 :] if layer.kind in ("quantize", "dequantize")]
    assert boundaries == list(conversions((4, 5, 5), found, readers))


@pytest.mark.parametrize(
    ("second", "inputs", "message"),
    [
        (pointwise("fp32", 5), (0,), "but its input is"),
        (pointwise("int8"), (0,), "but its input is"),
        (pointwise("fp32"), (1,), "does not come before it"),
    ],
    ids=["shape", "format", "order"],
)
def test_neighbours_that_disagree_are_refused(second: Layer, inputs: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workload(("a", "b"), (pointwise("fp32"), second), ((INPUT,), inputs))


def test_names_are_unique() -> None:
    with pytest.raises(ValueError, match="unique"):
        Workload(("a", "a"), (pointwise("fp32"),) * 2, ((INPUT,), (0,)))

"""Units as the layers that run: nothing is added or lost, and what engines cannot fuse stands alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.formats import needs_scale
from hw_profiles.graph.layer import ACTIVATIONS, INPUT, Layer, changed, map_layer, parse_key
from hw_profiles.graph.lowering import is_lowered, lower
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.workload import Workload, single

FULL = map_layer("mbconv", (16, 8, 8), 16, 5, activation="relu", expanded=64, squeeze=True, residual=True)
FORMATS = (("fp32", "fp32"), ("fp16", "fp16"), ("int8", "int8"), ("int4", "int8"), ("int4", "int6"))


@st.composite
def blocks(draw: st.DrawFn, entry: tuple[int, int, int] | None = None) -> Layer:
    channels = draw(st.sampled_from([8, 16, 24]))
    size = draw(st.integers(1, 9))
    shape = entry or (channels, size, size)
    residual = draw(st.booleans())
    stride = 1 if residual else draw(st.sampled_from([1, 2]))
    out_channels = shape[0] if residual else draw(st.sampled_from([8, 16, 40]))
    weight, activation = draw(st.sampled_from(FORMATS))
    return map_layer(
        "mbconv",
        shape,
        out_channels,
        draw(st.sampled_from([3, 5, 7])),
        stride,
        1,
        draw(st.sampled_from(["relu", "relu6", "hswish"])),
        weight,
        activation,
        expanded=shape[0] * draw(st.integers(1, 6)),
        squeeze=draw(st.booleans()),
        residual=residual,
    )


@st.composite
def networks(draw: st.DrawFn) -> Workload:
    """A stem, blocks, and a head, in any formats, with the conversions between them."""
    net = WorkloadBuilder((3, 9, 9))
    weight, activation = draw(st.sampled_from(FORMATS))
    form = {"activation": draw(st.sampled_from(ACTIVATIONS)), "weight_format": weight}
    x = net.add("stem", map_layer("stem", (3, 9, 9), 8, 3, 2, activation_format=activation, **form), INPUT)
    for position in range(draw(st.integers(0, 3))):
        x = net.add(f"b{position}", draw(blocks(entry=net.shape(x))), x)
    net.add("head", replace(map_layer("conv", net.shape(x), 16), activation="hswish"), x)
    return net.build()


def named(work: Workload) -> dict[str, Layer]:
    return dict(zip(work.names, work.layers, strict=True))


def test_a_block_with_everything() -> None:
    lowered = lower(single(FULL))
    parts = {name.removeprefix("mbconv."): layer.key() for name, layer in named(lowered).items()}
    assert parts == {
        "expand": "conv 16x8x8>64 k1s1g1 relu w=fp32 a=fp32",
        "depthwise": "conv 64x8x8>64 k5s1g64 relu w=fp32 a=fp32",
        "pool": "pool 64x8x8>64 k1s1g1 none w=fp32 a=fp32",
        "reduce": "conv 64x1x1>16 k1s1g1 relu w=fp32 a=fp32",
        "excite": "conv 16x1x1>64 k1s1g1 hsigmoid w=fp32 a=fp32",
        "scale": "mul 64x8x8>64 k1s1g1 none w=fp32 a=fp32",
        "project": "conv 64x8x8>16 k1s1g1 none w=fp32 a=fp32",
        "add": "add 16x8x8>16 k1s1g1 none w=fp32 a=fp32",
    }
    assert lowered.inputs == ((INPUT,), (0,), (1,), (2,), (3,), (1, 4), (5,), (6, INPUT))


def test_a_block_that_expands_nothing_has_no_convolution_for_it() -> None:
    lowered = lower(single(changed(FULL, expanded=16, squeeze=False, residual=False)))
    assert lowered.names == ("mbconv.depthwise", "mbconv.project")


@pytest.mark.parametrize("activation", ["hswish", "hsigmoid"])
def test_curves_stand_alone_behind_integer_convolutions_only(activation: str) -> None:
    conv = map_layer("conv", (8, 4, 4), 12, activation=activation)
    assert lower(single(conv)) == single(conv)
    integer = changed(conv, weight_format="int4", activation_format="int8")
    lowered = lower(single(integer))
    assert lowered.in_format == "int8"
    assert lowered.names == ("conv", f"conv.{activation}")
    assert lowered.layers[0] == replace(integer, activation="none")
    assert lowered.layers[1].key() == f"act 12x4x4>12 k1s1g1 {activation} w=fp32 a=int8"


@given(networks())
def test_lowering_keeps_work_weights_ends_and_names(work: Workload) -> None:
    lowered = lower(work)
    for count in (macs, params):
        assert sum(map(count, lowered.layers)) == sum(map(count, work.layers))
    assert (lowered.in_shape, lowered.in_format) == (work.in_shape, work.in_format)
    last, end = lowered.layers[-1], work.layers[-1]
    assert (last.out_shape, last.out_format) == (end.out_shape, end.out_format)
    kept = {name: layer for name, layer in named(work).items() if is_lowered(layer)}
    assert kept.items() <= named(lowered).items()


@given(networks())
def test_lowering_leaves_what_runs_and_does_not_change_it_again(work: Workload) -> None:
    lowered = lower(work)
    assert all(map(is_lowered, lowered.layers))
    assert lower(lowered) is lowered
    for layer in lowered.layers:
        assert layer.kind != "mbconv"
        assert parse_key(layer.key()) == layer
        if layer.kind == "act":
            assert needs_scale(layer.activation_format)


def test_memory_is_that_of_the_layers_in_a_block() -> None:
    plain = changed(FULL, squeeze=False)
    assert (
        peak_bytes(single(plain)) == (16 + 64 + 64) * 64 * 4
    )  # the shortcut and both sides of the depthwise
    alone = changed(plain, residual=False)
    assert peak_bytes(single(alone)) == (64 + 64) * 64 * 4
    integer = changed(plain, weight_format="int8", activation_format="int8", activation="hswish")
    assert peak_bytes(single(integer)) == (16 + 64 + 64) * 64  # one curve at a time


def test_a_product_reads_a_tensor_and_one_number_for_each_channel() -> None:
    pool, mul = map_layer("pool", (8, 4, 4), 8), map_layer("mul", (8, 4, 4), 8)
    work = Workload(("pool", "mul"), (pool, mul), ((INPUT,), (INPUT, 0)))
    assert work.layers[1].out_shape == (8, 4, 4)
    for wrong in ((INPUT, INPUT), (0, 0), (INPUT,)):
        with pytest.raises(ValueError, match="mul reads"):
            Workload(("pool", "mul"), (pool, mul), ((INPUT,), wrong))

"""What every registered number format promises, and parity with torch's own fake quantization."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import INPUT, LayerSpec
from hw_profiles.graph.workload import Workload
from hw_profiles.registry import names
from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.to_onnx import emit
from supernet.families.family import load_family
from supernet.formats.format import Format
from supernet.formats.loading import load_format, parse_precision
from supernet.formats.policy import Precision
from supernet.graph.quantized_graph import Network
from supernet.graph.simulate import simulate
from supernet.graph.subnet import recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.registry import FORMATS
from tests.published_data import DataFile

NAMES = sorted(names("trilobit.formats", FORMATS))
INTEGERS = [name for name in NAMES if name.startswith("int")]
QUANTIZED = [name for name in NAMES if load_format(name).activation_params(0.0, 1.0) is not None]
SAME_CODES = 1e-5  # of the largest logit: equal codes leave only the last product to differ
MIXED_SAME = 0.9
ROUNDING = 1e-3  # of a step: scales are float32, and 255 of their rounding errors add up

values = st.floats(-1e4, 1e4, width=32)
weights = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=values)
ranges = st.tuples(values, values).map(sorted)


@pytest.fixture(params=NAMES)
def number_format(request: pytest.FixtureRequest) -> Format:
    return load_format(request.param)


def through_codes(number_format: Format, x: np.ndarray, low: float, high: float) -> np.ndarray:
    """`x` (n,) quantized for the range [low, high] and back, as a network does it."""
    params = number_format.activation_params(low, high)
    shape = (len(x), 1, 1)
    layers = tuple(
        LayerSpec(op, shape, len(x), activation_format=number_format.name)
        for op in ("quantize", "dequantize")
    )
    network = Network(Workload(("q", "d"), layers, ((INPUT,), (0,))), {}, {"q": params})
    return simulate(network, torch.from_numpy(x).view(1, *shape)).flatten().numpy()


def test_is_named_as_it_is_registered_and_known_to_onnx(number_format: Format) -> None:
    assert load_format(number_format.name) is number_format
    assert number_format.onnx_weight_type in TensorProto.DataType.keys()  # noqa: SIM118, not a dict
    assert 1 <= number_format.bits <= 32


@pytest.mark.parametrize("name", NAMES)
@given(weight=weights)
def test_codes_survive_the_round_trip(name: str, weight: np.ndarray) -> None:
    chosen = load_format(name)
    codes, scale = chosen.quantize_weight(weight)
    assert codes.shape == weight.shape
    assert scale.shape == (len(weight),)
    assert scale.dtype == np.float32
    assert (scale > 0).all()
    np.testing.assert_array_equal(chosen.quantize_weight(chosen.dequantize_weight(codes, scale))[0], codes)


@pytest.mark.parametrize("name", NAMES)
@given(weight=weights)
def test_weights_are_at_most_half_a_step_off(name: str, weight: np.ndarray) -> None:
    codes, scale = load_format(name).quantize_weight(weight)
    error = np.abs(load_format(name).dequantize_weight(codes, scale) - weight)
    step = np.spacing(weight.astype(np.float16)).astype(np.float32) if name == "fp16" else scale[:, None]
    assert (error <= np.abs(step) * (0.5 + ROUNDING)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 2), (4, 2, 3, 3)])
def test_channels_are_quantized_on_their_own(name: str, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    codes, scale = load_format(name).quantize_weight(weight)
    for i in range(len(weight)):
        alone, own_scale = load_format(name).quantize_weight(weight[i : i + 1])
        np.testing.assert_array_equal(alone[0], codes[i])
        np.testing.assert_array_equal(own_scale, scale[i : i + 1])


@pytest.mark.parametrize("name", NAMES)
def test_zero_weights_stay_zero(name: str) -> None:
    zeros = np.zeros((2, 3), np.float32)
    codes, scale = load_format(name).quantize_weight(zeros)
    np.testing.assert_array_equal(load_format(name).dequantize_weight(codes, scale), zeros)


@pytest.mark.parametrize("name", QUANTIZED)
@given(seen=ranges, position=st.floats(0, 1))
def test_activations_in_the_range_are_at_most_half_a_step_off(
    name: str, seen: list[float], position: float
) -> None:
    low, high = seen
    params = load_format(name).activation_params(low, high)
    assert params is not None
    x = np.array([low, high, low + position * (high - low)], np.float32)
    error = np.abs(through_codes(load_format(name), x, low, high) - x)
    assert (error <= params.scale * (0.5 + ROUNDING)).all()


@pytest.mark.parametrize("name", QUANTIZED)
@given(seen=ranges)
def test_zero_is_exact_and_ranges_after_a_relu_begin_with_it(name: str, seen: list[float]) -> None:
    low, high = seen
    assert through_codes(load_format(name), np.zeros(1, np.float32), low, high) == 0
    params = load_format(name).activation_params(low, high)
    assert params is not None
    assert isinstance(params.zero_point, int)
    if low >= 0:
        assert params.zero_point == 0


def test_int8_weights_equal_torch() -> None:
    weight = np.random.default_rng(0).normal(size=(32, 16, 3, 3)).astype(np.float32)
    codes, scale = load_format("int8").quantize_weight(weight)
    scales, zeros = torch.from_numpy(scale), torch.zeros(32, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(torch.from_numpy(weight), scales, zeros, 0, -127, 127)
    np.testing.assert_array_equal(load_format("int8").dequantize_weight(codes, scale), theirs.numpy())
    np.testing.assert_allclose(scale, np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-1.5, 4.0), (0.0, 6.0), (0.3, 2.0), (-3.0, -1.0), (-0.01, 5.0)])
def test_int8_activations_equal_torch(low: float, high: float) -> None:
    x = np.random.default_rng(0).uniform(2 * low - high, 2 * high - low, 5000).astype(np.float32)
    params = load_format("int8").activation_params(low, high)
    assert params is not None
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), params.scale, params.zero_point, 0, 255
    )
    np.testing.assert_array_equal(through_codes(load_format("int8"), x, low, high), theirs.numpy())


@pytest.mark.parametrize("name", QUANTIZED)
def test_codes_fill_the_published_grid(name: str, data_file: DataFile) -> None:
    grid = json.loads(data_file("number_formats.json").read_text())[name.removesuffix("-exact")]
    chosen = load_format(name)
    assert chosen.bits == grid["bits"]
    low, high = grid["unsigned_range"]
    steps = np.arange(low, high + 1, dtype=np.float32)
    beyond = np.concatenate((steps, [low - 1, high + 1])).astype(np.float32)
    assert np.unique(through_codes(chosen, beyond, low, high)).tolist() == steps.tolist()


@pytest.mark.parametrize("name", INTEGERS)
def test_weight_codes_fill_the_published_grid(name: str, data_file: DataFile) -> None:
    grid = json.loads(data_file("number_formats.json").read_text())[name.removesuffix("-exact")]
    chosen = load_format(name)
    assert chosen.bits == grid["bits"]
    low, high = grid["symmetric_range"]
    codes, _ = chosen.quantize_weight(np.arange(low, high + 1, dtype=np.float32)[None] / 7)
    assert codes[0].tolist() == list(range(low, high + 1))


def test_fewer_bits_lose_more() -> None:
    """Relative errors on Gaussian groups of 128 with absmax scaling, as published."""
    weight = np.random.default_rng(0).normal(size=(4000, 128)).astype(np.float32)
    for name, published in (("int8", 4.2e-5), ("int6", 7.0e-4), ("int4", 0.01374)):
        found = load_format(name).dequantize_weight(*load_format(name).quantize_weight(weight))
        assert ((found - weight) ** 2).sum() / (weight**2).sum() == pytest.approx(published, rel=0.02)


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(TrilobitError, match="'int3'; known: fp16, fp32, int2, int4, int6, int8, int8-exact"):
        load_format("int3")


@pytest.mark.parametrize(
    ("choice", "weight", "activation"),
    [
        ("fp32", "fp32", "fp32"),
        ("fp16", "fp16", "fp16"),
        *((f"int{bits}", f"int{bits}", "int8") for bits in (8, 6, 4, 2)),
        ("int4/int6", "int4", "int6"),
        ("int6/int6", "int6", "int6"),
        ("int8/int4", "int8", "int4"),
        ("fp32/fp32", "fp32", "fp32"),
    ],
)
def test_a_choice_is_a_weight_format_and_perhaps_one_of_activations(
    choice: str, weight: str, activation: str
) -> None:
    assert parse_precision(choice) == Precision(weight, activation)
    assert parse_precision(str(parse_precision(choice))) == Precision(weight, activation)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("int4/int2", "int4 weights do not run on int2 activations"),
        ("int4/fp32", "int4 weights do not run on fp32 activations"),
        ("fp32/int8", "fp32 weights do not run on int8 activations"),
        ("int4/int5", "unknown format 'int5'; known"),
        ("int4/", "unknown format ''; known"),
        ("/int8", "unknown format ''; known"),
    ],
)
def test_pairs_that_nothing_computes_are_refused(choice: str, message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        parse_precision(choice)


def test_one_precision_under_two_names_is_refused() -> None:
    with pytest.raises(TrilobitError, match="each once; got 'int4, int4/int8'"):
        load_family("digits-mbconv", in_channels=1, classes=10, formats=("int4", "int4/int8"))


CHAINS = [
    ("int8",),
    ("int6",),
    ("int4",),
    ("int2",),
    ("int4/int6",),
    ("int8/int4", "int6/int6", "int2", "fp32"),
]


@pytest.mark.parametrize("formats", CHAINS, ids="+".join)
def test_files_compute_what_the_simulation_computes(formats: tuple[str, ...]) -> None:
    """Equal codes throughout; an fp32 convolution between may differ in its last bit, which tips a code."""
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=formats)
    net = trained_looking(family.supernet(rng=np.random.default_rng(0)))
    rows = family.space().sample(2, rng=np.random.default_rng(1))
    for candidate in map(family.space().candidate, rows):
        size = family.resolution(candidate)
        x = torch.randn(64, 1, size, size, generator=torch.Generator().manual_seed(0))
        subnet = family.extract(net, candidate)
        recalibrate(subnet, [x])
        network = quantize(subnet, family.workload(candidate), observe(subnet, x))
        (found,) = open_exactly(emit(network, batch=len(x))).run(None, {"image": x.numpy()})
        equal = np.abs(found - simulate(network, x).numpy()).max(axis=1) <= SAME_CODES * np.abs(found).max()
        assert equal.mean() >= (MIXED_SAME if "fp32" in formats else 1.0)


def trained_looking(net: torch.nn.Module) -> torch.nn.Module:
    """With batch norms and a classifier that no two channels share."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
        if isinstance(module, torch.nn.Linear):
            module.weight.data.normal_(generator=generator)
    return net

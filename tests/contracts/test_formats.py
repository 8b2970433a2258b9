"""What every registered number format promises, and parity with torch's own fake quantization."""

import json
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto

from hw_profiles import registry
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import (
    E8M0,
    ELEMENTS,
    Float,
    Int,
    NearestCode,
    element_types,
    in_integers,
    tensor_bits,
)
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.file_types import needed_opset
from nas.emit.to_onnx import emit, file_overhead, file_size, random_network
from nas.testing import check_format
from supernet.families.family import load_family
from supernet.formats.loading import Precision, load_activation_format, load_format, parse_precision
from supernet.formats.number_format import NumberFormat
from supernet.formats.onnx_weights import onnx_type
from supernet.formats.quantized_tensor import PER_TENSOR, Granularity
from supernet.formats.weight_format import WeightFormat
from supernet.graph.executor import forward, layered, recalibrated
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.graph.subnet import recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.qat.deploy import deploy
from supernet.qat.learned import new_quantizers
from supernet.registry import FORMATS
from supernet.train.student import structure_of
from tests.contracts.plugin_formats import ENTRY_POINTS, UNCOMPUTED
from tests.published_data import DataFile

NAMES = sorted({*FORMATS, *ENTRY_POINTS})
INTEGERS = [name for name, elements in ELEMENTS.items() if elements.multiplied]
SAME_CODES = 1e-5  # of the largest logit: equal codes leave only the last product to differ
TIPPED, MOST = 0.02, 0.9  # of the largest logit, where codes are tipped; of the images
HALF = 0.06  # of the largest logit, where ONNX Runtime's CPU kernels round to fp16 at other places
ROUNDING = 1e-3  # of a step: scales are float32, and 255 of their rounding errors add up
SHAPES = [(3, 2), (4, 2, 3, 3), (5, 37)]

values = st.floats(-1e4, 1e4, width=32)
weights = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=values)
ranges = st.tuples(values, values).map(sorted)


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    """Formats that no other file knows, found as those of an installed plug-in are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "plugins", {"trilobit.formats": ENTRY_POINTS}.get)
        yield


@pytest.fixture(params=NAMES)
def number_format(request: pytest.FixtureRequest) -> NumberFormat:
    return load_format(request.param)


TENSORS = [name for name, elements in ELEMENTS.items() if elements.scaled and elements.tensor is not None]


@pytest.fixture(params=[*TENSORS, "int5", "fp8-e4m3"])
def quantized(request: pytest.FixtureRequest) -> str:
    """The name of a format whose tensors have a stored scale."""
    return request.param


def through_codes(name: str, x: np.ndarray, low: float, high: float) -> np.ndarray:
    """`x` (n,) quantized for the range [low, high] and back, as a network does it."""
    params = load_activation_format(name).params(low, high)
    shape = (len(x), 1, 1)
    layers = tuple(map_layer(op, shape, len(x), activation_format=name) for op in ("quantize", "dequantize"))
    network = QuantizedGraph(Workload(("q", "d"), layers, ((INPUT,), (0,))), {}, {"q": params})
    return simulate(network, torch.from_numpy(x).view(1, *shape)).flatten().numpy()


def real_weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_is_named_as_it_is_registered_and_described_once(number_format: NumberFormat) -> None:
    """What graphs and runtimes know of a format is what it is made of."""
    assert load_format(number_format.name) is number_format
    assert number_format.weight.stored_as in TensorProto.DataType.keys()  # noqa: SIM118, not a dict
    assert 1 <= number_format.bits <= 32
    assert element_types(number_format.name) == number_format.elements
    assert load_activation_format(number_format.on)
    assert str(parse_precision(number_format.name)) in (
        number_format.name,
        f"{number_format.name}/{number_format.on}",
    )


@pytest.mark.parametrize("promise", check_format.promises)
def test_keeps_its_promises(number_format: NumberFormat, promise: Callable[[NumberFormat], None]) -> None:
    promise(number_format)


def test_every_built_in_format_has_its_elements_in_the_table_of_graphs() -> None:
    assert ELEMENTS.keys() == FORMATS.keys()


def test_codes_survive_the_round_trip(number_format: NumberFormat) -> None:
    chosen = number_format.weight

    @given(weight=weights)
    def check(weight: np.ndarray) -> None:
        tensor = chosen.encode(weight)
        assert tensor.codes.shape == weight.shape
        if chosen.needs_scale:
            assert tensor.scales is not None
            assert tensor.scales.shape == chosen.granularity.scale_shape(weight.shape)
            assert tensor.scales.dtype == np.float32
            assert tensor.scales.all()
        np.testing.assert_array_equal(chosen.encode(chosen.decode(tensor)).codes, tensor.codes)

    check()


def test_bits_per_weight_count_scales_and_zero_points() -> None:
    shape = (8, 4, 3, 3)
    assert load_format("fp32").weight.bits_per_weight(shape) == 32
    assert load_format("int4").weight.bits_per_weight(shape) == 4 + 32 / 36
    assert load_format("book4").weight.bits_per_weight(shape) == 4 + 32 * 3 / 36
    blocks = WeightFormat(Float(2, 1, "none"), Granularity(32), E8M0)
    assert blocks.bits_per_weight((8, 64)) == 4 + 8 / 32
    asymmetric = WeightFormat(Int(4, "unsigned"), Granularity(128), Float(5, 10))
    assert asymmetric.bits_per_weight((8, 128)) == 4 + (16 + 4) / 128
    assert WeightFormat(Int(8), PER_TENSOR).bits_per_weight((8, 64)) == 8 + 32 / 512


@pytest.mark.parametrize(
    ("weight_format", "error"),
    [
        (WeightFormat(Int(4, "unsigned"), Granularity(128)), 0.01010),
        (WeightFormat(Int(3, "unsigned"), Granularity(128)), 0.0464),
        (WeightFormat(Float(2, 1, "none"), Granularity(128)), 0.01188),
        (WeightFormat(Float(2, 3, "none"), Granularity(128)), 7.0e-4),
        (WeightFormat(Float(3, 2, "none"), Granularity(128)), 2.6e-3),
        (WeightFormat(Float(4, 3, "none"), Granularity(128)), 6.6e-4),
        (WeightFormat(Float(5, 2, "none"), Granularity(128)), 2.6e-3),
        *(
            (load_format(f"int{bits}").weight, error)
            for bits, error in ((8, 4.2e-5), (6, 7.0e-4), (4, 0.01374))
        ),
    ],
)
def test_errors_on_gaussian_groups_are_the_known_ones(weight_format: WeightFormat, error: float) -> None:
    """Relative squared errors of groups of 128 with scales by the largest magnitude."""
    weight = np.random.default_rng(0).normal(size=(4000, 128)).astype(np.float32)
    rounded = weight_format.decode(weight_format.encode(weight))
    assert ((rounded - weight) ** 2).sum() / (weight**2).sum() == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize(
    ("element", "theirs"),
    [
        (Float(4, 3, "nan"), ml_dtypes.float8_e4m3fn),
        (Float(5, 2), ml_dtypes.float8_e5m2),
        (Float(2, 1, "none"), ml_dtypes.float4_e2m1fn),
        (Float(3, 2, "none"), ml_dtypes.float6_e3m2fn),
        (Float(2, 3, "none"), ml_dtypes.float6_e2m3fn),
    ],
)
def test_small_floats_are_those_of_ml_dtypes(element: Float, theirs: type) -> None:
    decoded = np.arange(2**element.bits, dtype=np.uint8).view(theirs).astype(np.float32)
    np.testing.assert_array_equal(element.values, np.where(np.isfinite(decoded), decoded, np.nan))
    table = NearestCode.of(element)
    x = np.random.default_rng(0).normal(0, element.largest / 3, 10_000).astype(np.float32)
    ties = (table.values[1:] + table.values[:-1]) / 2
    x = np.clip(np.concatenate([x, ties]), -element.largest, element.largest)
    rounded = table.values[np.searchsorted(table.thresholds, x, side="left")]
    np.testing.assert_array_equal(rounded, x.astype(theirs).astype(np.float32))


def test_activations_in_the_range_are_at_most_half_a_step_off(quantized: str) -> None:
    @given(seen=ranges, position=st.floats(0, 1))
    def check(seen: list[float], position: float) -> None:
        low, high = seen
        params = load_activation_format(quantized).params(low, high)
        x = np.array([low, high, low + position * (high - low)], np.float32)
        element = load_activation_format(quantized).element
        step = 1.0 if isinstance(element, Int) else np.diff(NearestCode.of(element).values).max()
        error = np.abs(through_codes(quantized, x, low, high) - x)
        assert (error <= params.scale * step * (0.5 + ROUNDING)).all()

    check()


def test_zero_is_exact_and_ranges_after_a_relu_begin_with_it(quantized: str) -> None:
    @given(seen=ranges)
    def check(seen: list[float]) -> None:
        low, high = seen
        assert through_codes(quantized, np.zeros(1, np.float32), low, high) == 0
        params = load_activation_format(quantized).params(low, high)
        assert isinstance(params.zero_point, int)
        if low >= 0:
            assert params.zero_point == 0

    check()


def test_int8_weights_equal_torch() -> None:
    weight = np.random.default_rng(0).normal(size=(32, 16, 3, 3)).astype(np.float32)
    tensor = load_format("int8").weight.encode(weight)
    assert tensor.scales is not None
    scales, zeros = torch.from_numpy(tensor.scales), torch.zeros(32, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(torch.from_numpy(weight), scales, zeros, 0, -127, 127)
    np.testing.assert_array_equal(load_format("int8").weight.decode(tensor), theirs.numpy())
    np.testing.assert_allclose(tensor.scales, np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-1.5, 4.0), (0.0, 6.0), (0.3, 2.0), (-3.0, -1.0), (-0.01, 5.0)])
def test_int8_activations_equal_torch(low: float, high: float) -> None:
    x = np.random.default_rng(0).uniform(2 * low - high, 2 * high - low, 5000).astype(np.float32)
    params = load_activation_format("int8").params(low, high)
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), params.scale, params.zero_point, 0, 255
    )
    np.testing.assert_array_equal(through_codes("int8", x, low, high), theirs.numpy())


@pytest.mark.parametrize("name", ["int8", "int6", "int4", "int2"])
def test_codes_fill_the_published_grid(name: str, data_file: DataFile) -> None:
    grid = json.loads(data_file("number_formats.json").read_text())[name.removesuffix("-exact")]
    chosen = load_format(name)
    assert chosen.bits == grid["bits"]
    low, high = grid["unsigned_range"]
    steps = np.arange(low, high + 1, dtype=np.float32)
    beyond = np.concatenate((steps, [low - 1, high + 1])).astype(np.float32)
    assert np.unique(through_codes(name, beyond, low, high)).tolist() == steps.tolist()


@pytest.mark.parametrize("name", INTEGERS)
def test_weight_codes_fill_the_published_grid(name: str, data_file: DataFile) -> None:
    grid = json.loads(data_file("number_formats.json").read_text())[name.removesuffix("-exact")]
    chosen = load_format(name)
    assert chosen.bits == grid["bits"]
    low, high = grid["symmetric_range"]
    codes = chosen.weight.encode(np.arange(low, high + 1, dtype=np.float32)[None] / 7).codes
    assert codes[0].tolist() == list(range(low, high + 1))


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(
        TrilobitError, match="'int3'; known: book4, fp16, fp32, fp8-e4m3, int2, int2-g128, int4"
    ):
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
        ("int4/fp32", "int4", "fp32"),
        ("fp32/int8", "fp32", "int8"),
        ("book4", "book4", "fp32"),
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
        ("int4/int8-exact", "int8-exact is a number format of weights only"),
        ("int4/int7", "unknown format 'int7'; known"),
        ("int4/", "unknown format ''; known"),
        ("/int8", "unknown format ''; known"),
    ],
)
def test_activations_in_no_format_of_tensors_are_refused(choice: str, message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        parse_precision(choice)


@pytest.mark.parametrize("name", UNCOMPUTED)
def test_tensors_that_nothing_computes_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are chosen, and where a network would have them: they would be written as something else."""
    entry_point = f"tests.contracts.plugin_formats:{name.upper()}"
    monkeypatch.setattr(registry, "plugins", {"trilobit.formats": {name: entry_point}}.get)
    refusal = (
        f"no tensor can be in {name}: .*'{UNCOMPUTED[name].scaling}'; allowed .*Choose .* one of fp32, fp16"
    )
    for choice in (name, f"int4/{name}"):
        with pytest.raises(TrilobitError, match=refusal):
            parse_precision(choice)
    assert parse_precision(f"{name}/int8") == Precision(name, "int8")
    layer = map_layer("quantize", (4, 1, 1), 4, activation_format=name)
    with pytest.raises(TrilobitError, match=refusal):
        QuantizedGraph(Workload(("q",), (layer,), ((INPUT,),)), {}, {})


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
    ("int5",),
    ("int5/int5", "int4/int2"),
    ("int8/fp32", "int4/fp32", "fp32"),
    ("fp32/int8", "int4/fp32", "int8-exact"),
    ("book4", "fp8-e4m3/fp32", "fp32"),
    ("fp8-e4m3", "book4/int8", "int8/fp8-e4m3"),
    ("fp16", "int8", "fp32"),
]


# layers that compute in real numbers on tensors in few bits: one tipped code is a whole step of the answer
TIPPING = {"int8/fp32", "fp32/int8", "book4", "fp8-e4m3"}


@pytest.mark.parametrize("formats", CHAINS, ids="+".join)
def test_files_compute_what_the_simulation_computes(formats: tuple[str, ...]) -> None:
    """Equal codes throughout; what computes in real numbers may differ in its last bit, which tips a code."""
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
        exact = all(
            in_integers(layer.weight_format, layer.activation_format)
            for layer in network.workload.layers
            if layer.weighted
        )
        error = np.abs(found - simulate(network, x).numpy()).max(axis=1) / np.abs(found).max()
        near = HALF if "fp16" in formats else TIPPED if {*formats} & TIPPING else SAME_CODES
        assert (error <= near).mean() >= (1.0 if exact else MOST)


@pytest.mark.parametrize("pair", ["int4/fp32", "int8/fp32", "book4/fp32", "fp8-e4m3/fp32", "int8-exact/fp32"])
def test_weight_only_formats_stay_weight_only_in_the_file(pair: str) -> None:
    """No weight is stored as floats, and the runtime makes of them what the simulation computes with."""
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=(pair,))
    candidate = family.space().candidate(family.space().sample(1, rng=np.random.default_rng(0))[0])
    network = random_network(family.workload(candidate), rng=np.random.default_rng(0))
    model = onnx.load_from_string(emit(network))
    stored = {t.name: t for t in model.graph.initializer}
    for name, parameters in network.parameters.items():
        codes = stored[f"{name}.wc"]
        assert TensorProto.DataType.Name(codes.data_type) == onnx_type(
            load_format(pair.partition("/")[0]).weight.element
        )
        assert f"{name}.w" not in stored
        assert parameters.weight.scales is not None
    floats = sum(np.prod(t.dims) for t in stored.values() if t.data_type == TensorProto.FLOAT)
    assert floats < 0.2 * sum(p.weight.codes.size for p in network.parameters.values())


@pytest.mark.parametrize("name", NAMES)
def test_sizes_of_layers_add_up_to_the_file(name: str) -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=(name,))
    candidate = family.space().candidate(family.space().sample(1, rng=np.random.default_rng(0))[0])
    work = family.workload(candidate)
    model = emit(random_network(work, rng=np.random.default_rng(0)))
    assert file_overhead() + sum(map(file_size, work.layers)) == pytest.approx(len(model), rel=0.06)
    assert onnx.load_from_string(model).opset_import[0].version == needed_opset(work)
    for layer in work.layers:
        assert tensor_bits(layer.out_format) == load_activation_format(layer.out_format).bits


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


@pytest.mark.parametrize(
    "formats", [("int5/int5",), ("book4",), ("fp8-e4m3",), ("int4/fp32",), ("fp8-e4m3/int8",)]
)
def test_a_policy_is_trained_and_converted_to_what_was_trained(formats: tuple[str, ...]) -> None:
    """Scales learn where there are some, weights always, and the converted network computes the same."""
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=formats)
    net = layered(trained_looking(family.supernet(rng=np.random.default_rng(0))))
    work = family.workload(family.extremes()[f"smallest/{formats[0]}"])
    x = torch.randn(32, 1, *work.in_shape[1:], generator=torch.Generator().manual_seed(0))
    quantizers = new_quantizers(structure_of(work), net, [(work, x)])
    forward(net, quantizers, work, x).square().mean().backward()
    gradients = {name: scale.grad for name, scale in quantizers.tensor_scales.items()}
    idle = [name for name, gradient in gradients.items() if gradient is None or gradient == 0]
    assert all(name.startswith("pool:") for name in idle)  # of one pixel: its values are codes already
    assert net.layer("stem").weight.grad.abs().max() > 0
    with torch.no_grad():
        network = deploy(net, quantizers, work, [x])
        statistics = recalibrated(net, quantizers, lower(work), [x])
        expected = forward(net, quantizers, work, x, statistics=statistics)
    error = (simulate(network, x) - expected).abs().amax(dim=1) / expected.abs().max()
    assert (error <= TIPPED).float().mean() >= MOST

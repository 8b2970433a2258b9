"""Every schedule of every kind of unit computes what `hw_profiles.reference.integer_ops` says, bit for
bit.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.reference.integer_ops import UnitNumbers, run_unit
from hw_profiles.reference.random_units import random_inputs, random_numbers
from hw_profiles.runtimes.tvm_cpu.compile import compile_candidate, compile_candidates, link_shared
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.epilogue import output_zero_point
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, host_target
from hw_profiles.runtimes.tvm_cpu.templates import is_supported, refusal, template_of
from hw_profiles.runtimes.tvm_cpu.tuning import agrees, run_locally
from hw_profiles.runtimes.tvm_cpu.unit import Tile
from predictors.table import distinct_layers
from supernet.families.family import Family, load_family
from tests.hw_profiles.test_windows import layers

FAST = (
    "stem 3x9x9>16 k3s2g1 relu w=int8 a=int8",
    "conv 24x6x6>40 k1s1g1 relu w=int8 a=int8",
    "conv 32x4x4>16 k1s1g1 none w=int4 a=int8",
    "conv 16x7x7>16 k5s2g16 relu w=int8 a=int8",
    "conv 24x6x6>24 k3s1g24 relu w=int4 a=int8",
    "conv 16x3x3>16 k1s1g1 relu w=int2 a=int8",
    "conv 16x3x3>16 k3s1g16 none w=int6 a=int8",
    "conv 16x6x6>16 k3s1g16 relu w=fp32 a=fp32",
    "conv 16x6x6>24 k1s1g1 none w=fp32 a=fp32",
    "linear 24x1x1>10 k1s1g1 none w=int8 a=int8",
    "add 8x3x3>8 k1s1g1 none w=fp32 a=int8",
    "pool 24x3x3>24 k1s1g1 none w=fp32 a=int8",
    "pool 5x3x3>5 k1s1g1 none w=fp32 a=fp32",
    "quantize 5x3x3>5 k1s1g1 none w=fp32 a=int8",
    "dequantize 16x3x3>16 k1s1g1 none w=fp32 a=int8",
)
ANY_WINDOW = (
    'Conv batch,3,10,9:int8 relu6 w=int8 {"pads":[0,0,1,1],"strides":[2,2],"weight":[16,3,3,3]}',
    'Conv batch,20,7,9:int8 relu6 w=int8 {"group":20,"pads":[1,0,0,3],"strides":[2,1],"weight":[20,1,3,5]}',
    'Conv batch,1,12,5:fp32 relu w=fp32 {"pads":[4,1,5,1],"strides":[2,2],"weight":[8,1,10,4]}',
    'Gemm batch,6,2,3:int8 relu w=int4 {"to":"int8","weight":[10,36]}',
    'AveragePool batch,6,5,7:int8 none w=fp32 {"kernel_shape":[3,2],"pads":[1,0,1,1],"strides":[2,2]}',
    'MaxPool batch,6,5,7:int8 none w=fp32 {"kernel_shape":[3,2],"pads":[1,0,1,1],"strides":[2,2]}',
)
MORE_WINDOWS = (
    'Conv batch,4,10,9:int8 none w=int8 {"pads":[1,0,0,3],"strides":[2,1],"weight":[16,4,3,5]}',
    'Conv batch,4,10,9:fp32 relu6 w=fp32 {"pads":[1,0,0,3],"strides":[2,1],"weight":[16,4,3,5]}',
    'Conv batch,20,7,9:fp32 relu6 w=fp32 {"group":20,"pads":[1,0,0,3],"strides":[2,1],"weight":[20,1,3,5]}',
    'Gemm batch,40:fp32 relu w=fp32 {"weight":[10,40]}',
    "add 6x2x3>6 k1s1g1 relu6 w=fp32 a=int8",
    "add 6x2x3>6 k1s1g1 relu6 w=fp32 a=fp32",
    "avgpool 6x5x7>6 k2s2g1 none w=fp32 a=int8",
    'AveragePool batch,6,5,7:fp32 none w=fp32 {"kernel_shape":[3,2],"pads":[1,0,1,1],"strides":[2,2]}',
    "AveragePool batch,16,5,7:int8 none w=fp32 "
    '{"count_include_pad":1,"kernel_shape":[3,2],"pads":[1,0,1,1],"strides":[2,2]}',
    'MaxPool batch,6,5,7:fp32 none w=fp32 {"kernel_shape":[3,2],"pads":[1,0,1,1],"strides":[2,2]}',
    "maxpool 64x8x8>64 k3s2g1 none w=fp32 a=int8",
    "act 6x5x7>6 k1s1g1 relu w=fp32 a=int8",
    'Clip batch,6,5,7:int8 none w=fp32 {"max":2.0,"min":-1.0}',
    'Clip batch,6,5,7:fp32 none w=fp32 {"max":2.0}',
    'Softmax batch,10:fp32 none w=fp32 {"axis":1}',
    'Softmax batch,10,2,2:fp32 none w=fp32 {"axis":1}',
)
OLDER = (
    *FAST[:4],
    "conv 24x6x6>40 k1s1g1 relu w=int8-exact a=int8",
    "conv 16x7x7>16 k5s2g16 relu w=int8-exact a=int8",
)
ODD = [
    f"{op} {channels}x{size}x{size}>{out} k{kernel}s{stride}g{groups} {act} w={weight} a=int8"
    for channels, out in ((3, 5), (5, 8), (8, 24), (24, 100), (100, 3))
    for size, stride, act, weight in ((3, 1, "relu", "int8"), (7, 2, "none", "int4"), (12, 1, "none", "int8"))
    for op, kernel, groups in (("conv", 1, 1), ("conv", 3, 1))
] + [
    f"conv {c}x{size}x{size}>{c} k{kernel}s{stride}g{c} relu w={weight} a={act}"
    for c in (3, 5, 8, 24, 100)
    for size, kernel, stride in ((3, 7, 1), (7, 5, 2), (12, 3, 2))
    for weight, act in (("int8", "int8"), ("int4", "int8"), ("fp32", "fp32"))
]


def check(layer: Layer, target: TvmTarget, folder: Path) -> None:
    """All candidates of one unit."""
    rng = np.random.default_rng(list(layer.key().encode()))
    numbers, inputs = random_numbers(layer, rng, sums=sums_of(target)), random_inputs(layer, rng)
    expected, library = (
        run_unit(layer, numbers, inputs),
        folder / f"{layer.op}-{len(list(folder.iterdir()))}.so",
    )
    candidates = list(compile_candidates(layer, target))
    assert not [(layer.key(), each.tile, each.error) for each in candidates if each.error is not None]
    codes = {folder / f"{candidate.symbol}.o": candidate.code for candidate in candidates}
    for path, code in codes.items():
        path.write_bytes(code)
    link_shared(target, list(map(str, codes)), library)
    for candidate in candidates:
        arrays = [*inputs, *template_of(layer).pack(layer, numbers, target, candidate.tile)]
        shaped = [a.reshape(b.shape) for a, b in zip(arrays, candidate.arguments, strict=False)]
        result = np.zeros(candidate.arguments[-1].shape, candidate.arguments[-1].dtype)
        output, _ = run_locally(library, candidate.symbol, [*shaped, result])
        assert agrees(output.reshape(expected.shape), expected), (layer.key(), candidate.tile)
        exact = layer.activation_format != "fp32" and layer.kind != "dequantize"
        assert not exact or np.array_equal(output.reshape(expected.shape), expected), layer.key()


@pytest.fixture(scope="module", params=["digits-mbconv", "cifar-mbconv"])
def family(request: pytest.FixtureRequest) -> Family:
    channels = 1 if request.param == "digits-mbconv" else 3
    return load_family(request.param, in_channels=channels, classes=10)


@pytest.mark.parametrize("key", FAST + ANY_WINDOW)
def test_every_schedule_is_exact(key: str, host: TvmTarget, tmp_path: Path) -> None:
    check(parse_key(key), host, tmp_path)


@pytest.mark.parametrize(
    ("cpu", "keys"),
    [
        ("haswell", OLDER[1::2]),
        pytest.param("haswell", OLDER[::2], marks=pytest.mark.slow),
        pytest.param("x86-64-v2", OLDER[1::2], marks=pytest.mark.slow),
        pytest.param("skylake-avx512", OLDER[1::2], marks=pytest.mark.slow),
        pytest.param("cascadelake", OLDER[1::2], marks=pytest.mark.slow),
    ],
)
def test_so_it_is_on_older_processors(cpu: str, keys: tuple[str, ...], tmp_path: Path) -> None:
    older = TvmTarget(cpu)
    if not older.local:
        pytest.skip("this machine does not run its code")
    for key in keys:
        check(parse_key(key), older, tmp_path)


def test_every_unit_of_the_dense_space_has_a_kernel() -> None:
    family = load_family("cifar-pooled", in_channels=3, classes=10)
    assert all(map(is_supported, distinct_layers(family.space(), family.terms())))


@pytest.mark.slow
def test_units_of_the_families_are_exact(family: Family, host: TvmTarget, tmp_path: Path) -> None:
    distinct = sorted(distinct_layers(family.space(), family.terms()), key=Layer.key)
    assert all(map(is_supported, distinct))
    for i in np.random.default_rng(0).choice(len(distinct), 60, replace=False):
        check(distinct[i], host, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("key", [*ODD, *MORE_WINDOWS])
def test_odd_shapes_are_exact(key: str, host: TvmTarget, tmp_path: Path) -> None:
    check(parse_key(key), host, tmp_path)


@pytest.mark.slow
@given(st.one_of(layers("int8"), layers("fp32")))
@settings(max_examples=10, deadline=None)
def test_any_window_is_exact(layer: Layer) -> None:
    if refusal(layer) is None:
        with TemporaryDirectory() as folder:
            check(layer, host_target(), Path(folder))


def test_large_accumulators_and_ratios_do_not_overflow(host: TvmTarget, tmp_path: Path) -> None:
    layer = parse_key("conv 64x2x2>16 k1s1g1 none w=int8 a=int8")
    rng = np.random.default_rng(0)
    plain = random_numbers(layer, rng, sums=sums_of(host))
    assert plain.output is not None
    weight, bias = plain.parameters[0], rng.integers(-(2**30), 2**30, 16).astype(np.int32)
    # up to 1.9: rescaled sums fit into 32 bits, as those of any network do
    ratios = np.logspace(-11, np.log10(1.9), 16)
    steep = (ratios * plain.output.scale / plain.input().scale).astype(np.float32)
    numbers = UnitNumbers(plain.inputs, plain.output, weight, steep, bias)
    inputs = random_inputs(layer, rng)
    candidate = compile_candidate(layer, host, template_of(layer).tiles(layer, host)[0])
    code = tmp_path / "unit.o"
    code.write_bytes(candidate.code)
    link_shared(host, [str(code)], tmp_path / "unit.so")
    packed = template_of(layer).pack(layer, numbers, host, candidate.tile)
    arrays = [x.reshape(a.shape) for x, a in zip([*inputs, *packed], candidate.arguments, strict=False)]
    result = np.zeros(candidate.arguments[-1].shape, np.uint8)
    found, _ = run_locally(tmp_path / "unit.so", candidate.symbol, [*arrays, result])
    np.testing.assert_array_equal(found.reshape(2, 2, 16), run_unit(layer, numbers, inputs))


@pytest.mark.parametrize("cpu", ["haswell", "icelake-server"])
def test_what_the_compiler_rejects_is_an_error_in_one_line(cpu: str) -> None:
    """On processors with and without VNNI alike."""
    layer = parse_key("conv 16x4x4>16 k1s1g1 relu w=int8 a=int8")
    candidate = compile_candidate(layer, TvmTarget(cpu), Tile(lanes=-1))
    assert candidate.error
    assert "\n" not in candidate.error
    assert not candidate.code


def test_a_relu_has_zero_point_0() -> None:
    layer = parse_key("conv 16x4x4>16 k1s1g1 none w=int8 a=int8")
    numbers = random_numbers(layer, np.random.default_rng(0))
    relu = parse_key("conv 16x4x4>16 k1s1g1 relu w=int8 a=int8")
    with pytest.raises(ValueError, match="zero point 0"):
        output_zero_point(relu, numbers)


REFUSED = {
    "conv 8x4x4>8 k3s1g1 hswish w=fp32 a=fp32": "hswish",
    "conv 8x4x4>8 k3s1g4 relu w=fp32 a=fp32": "8 channels in 4 groups that give 8",
    'Conv batch,8,4,4:fp32 none w=fp32 {"group":8,"weight":[16,1,3,3]}': "in 8 groups that give 16",
    'Conv batch,8,9,9:fp32 none w=fp32 {"dilations":[2,2],"weight":[16,8,3,3]}': "gaps",
    'Conv batch,8,9:fp32 none w=fp32 {"weight":[16,8,3]}': "neither maps nor features",
    'Conv 2,8,9,9:fp32 none w=fp32 {"weight":[16,8,3,3]}': "of one example",
    "conv 8x4x4>8 k3s1g1 relu w=fp8_e4m3 a=fp32": "fp8_e4m3 weights",
    "conv 8x4x4>8 k3s1g1 relu w=fp16 a=fp16": "fp16 activations",
    "mul 8x4x4>8 k1s1g1 none w=fp32 a=fp32": "no kernel is written",
    'Softmax batch,8,4,4:fp32 none w=fp32 {"axis":2}': "over channels only",
    'Softmax batch,8,4,4:int8 none w=fp32 {"axis":1}': "over the last dimension",
    "Add batch,8,4,4:fp32 batch,8,1,1:fp32 none w=fp32": "of one shape",
    "AveragePool batch,8,5,5:fp32 none w=fp32 "
    '{"ceil_mode":1,"count_include_pad":1,"kernel_shape":[2,2],"strides":[2,2]}': "rounded up",
}


def test_no_kernel_is_promised_that_there_is_not() -> None:
    wrong = {key: why for key, why in REFUSED.items() if why not in (refusal(parse_key(key)) or "")}
    assert not wrong

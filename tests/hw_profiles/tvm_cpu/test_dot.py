"""Which instruction multiplies which weights on which processor, and that none of them ever saturates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hw_profiles.graph.layer import Layer, map_layer, parse_key
from hw_profiles.graph.workload import single
from hw_profiles.reference.integer_ops import UnitNumbers, run_unit
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums
from hw_profiles.reference.random_units import random_inputs, random_numbers, weight_range
from hw_profiles.runtimes.tvm_cpu.compile import compile_candidate, link_shared
from hw_profiles.runtimes.tvm_cpu.dot import (
    INSTRUCTIONS,
    checked_codes,
    exact_where_needed,
    instruction_of,
    sums_of,
)
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from hw_profiles.runtimes.tvm_cpu.templates import template_of

POINTWISE = parse_key("conv 16x4x4>16 k1s1g1 relu w=int8 a=int8")
EXACT = replace(POINTWISE, weight_format="int8-exact")
OLDER = "haswell"  # AVX2, no VNNI

CHOICES = {
    # target: (of int8 weights, of int8-exact ones, what it is called in assembly)
    "znver4": ("vpdpbusd", "vpdpbusd", ("vpdpbusd", "vpdpbusd")),
    "cascadelake": ("vpdpbusd", "vpdpbusd", ("vpdpbusd", "vpdpbusd")),
    "alderlake": ("vpdpbusd", "vpdpbusd", ("vpdpbusd", "vpdpbusd")),
    "skylake-avx512": ("pmaddubsw", "pmaddwd", ("vpmaddubsw", "vpmaddwd")),
    "znver3": ("pmaddubsw", "pmaddwd", ("vpmaddubsw", "vpmaddwd")),
    "haswell": ("pmaddubsw", "pmaddwd", ("vpmaddubsw", "vpmaddwd")),
    "x86-64-v2": ("pmaddubsw", "pmaddwd", ("pmaddubsw", "pmaddwd")),
    "aarch64-linux-gnu:cortex-a76": ("sdot", "sdot", ("sdot", "sdot")),
    "aarch64-linux-gnu:neoverse-n2": ("usdot", "usdot", ("usdot", "usdot")),
}
NOTHING = ("x86-64", "aarch64-linux-gnu:cortex-a53")  # neither ssse3 nor dotprod


def assembly(layer: Layer, target: TvmTarget) -> str:
    function = template_of(layer).schedule(layer, target, template_of(layer).tiles(layer, target)[0])
    module = tvm.IRModule({"unit": function.with_attr("global_symbol", "unit")})
    return str(tvm.compile(module, target=target.tvm_target()).mod.inspect_source("asm"))


@pytest.mark.parametrize("name", CHOICES)
def test_the_fastest_instruction_that_is_exact_is_in_the_code(name: str) -> None:
    target = parse_target(name)
    *chosen, mnemonics = CHOICES[name]
    for layer, instruction, mnemonic in zip((POINTWISE, EXACT), chosen, mnemonics, strict=True):
        found = instruction_of(layer, target)
        assert found
        assert found.name == instruction
        assert f"\t{mnemonic}\t" in assembly(layer, target)
    saturating = chosen[0] == "pmaddubsw"
    assert sums_of(target) is (IntegerSums.SATURATING if saturating else IntegerSums.EXACT)


@pytest.mark.parametrize("key", [POINTWISE.key(), "conv 16x4x4>16 k3s1g16 relu w=int8 a=int8"])
def test_avx2_rescales_with_one_instruction_for_a_product_and_one_for_a_shift(key: str) -> None:
    instructions = assembly(parse_key(key), TvmTarget(OLDER)).split()
    assert "vpmuldq" in instructions
    assert "vpmuludq" not in instructions  # of which a product of 64 bits takes three
    assert "vpsrlvq" in instructions
    assert "vpsrad" not in instructions  # of which arithmetic shifts of 64 bits are made


@pytest.mark.parametrize("name", NOTHING)
def test_other_processors_multiply_byte_by_byte(name: str) -> None:
    target = parse_target(name)
    assert instruction_of(POINTWISE, target) is None
    assert sums_of(target) is IntegerSums.EXACT


def test_real_units_have_no_integer_instruction(host: TvmTarget) -> None:
    assert instruction_of(parse_key("conv 16x4x4>16 k1s1g1 relu w=fp32 a=fp32"), host) is None


def with_codes(layer: Layer, codes: NDArray[np.int8]) -> UnitNumbers:
    return replace(random_numbers(layer, np.random.default_rng(0)), weight=codes)


@pytest.mark.parametrize("key", [POINTWISE.key(), "conv 16x4x4>16 k3s1g16 relu w=int8 a=int8"])
def test_codes_that_would_saturate_are_never_packed_for_the_instruction_that_does(key: str) -> None:
    layer, target = parse_key(key), TvmTarget(OLDER)
    template = template_of(layer)
    tile = template.tiles(layer, target)[0]
    codes = np.zeros((16, layer.in_shape[0] // layer.groups, layer.kernel, layer.kernel), np.int8)
    for code in (WIDEST_EXACT, -WIDEST_EXACT):
        codes[3, 0] = code
        template.pack(layer, with_codes(layer, codes), target, tile)
    for code in (WIDEST_EXACT + 1, -WIDEST_EXACT - 1, -128):
        codes[3, 0] = code
        with pytest.raises(ValueError, match="would saturate"):
            template.pack(layer, with_codes(layer, codes), target, tile)
        exact = replace(layer, weight_format="int8-exact")
        template.pack(exact, with_codes(exact, codes), target, tile)


def test_layers_with_larger_codes_are_compiled_for_all_codes() -> None:
    work, target = single(POINTWISE), TvmTarget(OLDER)
    narrow, wide = (np.full((16, 16, 1, 1), code, np.int8) for code in (64, -65))
    assert exact_where_needed(work, {"conv": with_codes(POINTWISE, narrow)}, target) == work
    numbers = {"conv": with_codes(POINTWISE, wide)}
    assert exact_where_needed(work, numbers, target) == single(EXACT)
    assert exact_where_needed(work, numbers, parse_target("aarch64-linux-gnu:cortex-a76")) == work
    pool = single(parse_key("pool 8x3x3>8 k1s1g1 none w=fp32 a=int8"))
    assert exact_where_needed(
        pool, {"pool": random_numbers(pool.layers[0], np.random.default_rng(0))}, target
    )


def test_drawn_weights_are_those_that_a_device_takes() -> None:
    drawn = random_numbers(POINTWISE, np.random.default_rng(0), sums=IntegerSums.SATURATING)
    assert np.abs(checked_codes(POINTWISE, drawn, INSTRUCTIONS[1]).astype(int)).max() <= WIDEST_EXACT
    assert weight_range("int8") == (-128, 127)
    assert weight_range("int8-exact", IntegerSums.SATURATING) == (-128, 127)


def computed(
    layer: Layer,
    numbers: UnitNumbers,
    inputs: tuple[NDArray[np.generic], ...],
    target: TvmTarget,
    folder: Path,
) -> NDArray[np.generic]:
    """What the first schedule of a unit gives."""
    template = template_of(layer)
    candidate = compile_candidate(layer, target, template.tiles(layer, target)[0])
    assert candidate.error is None, candidate.error
    code, library = folder / "unit.o", folder / f"{candidate.symbol}.so"
    code.write_bytes(candidate.code)
    link_shared(target, [str(code)], library)
    arrays = [*inputs, *template.pack(layer, numbers, target, candidate.tile)]
    shaped = [a.reshape(b.shape) for a, b in zip(arrays, candidate.arguments, strict=False)]
    result = np.zeros(candidate.arguments[-1].shape, candidate.arguments[-1].dtype)
    tensors = [tvm.runtime.tensor(array) for array in (*shaped, result)]
    tvm.runtime.load_module(str(library))[candidate.symbol](*tensors)
    return np.asarray(tensors[-1].numpy())


def worst(layer: Layer, codes: tuple[int, int]) -> tuple[UnitNumbers, tuple[NDArray[np.generic], ...]]:
    """All inputs at their largest code, all weights of a channel at one of `codes`, and a scale that clips
    none.
    """
    drawn = random_numbers(layer, np.random.default_rng(0))
    assert drawn.weight is not None
    weight = np.empty_like(drawn.weight)
    weight[::2], weight[1::2] = codes
    sums = 255.0 * 255 * layer.in_shape[0] // layer.groups * layer.kernel**2
    scale = np.full(layer.out_channels, 2000.0 / sums, np.float32)
    inputs = tuple(np.full_like(each, 255) for each in random_inputs(layer, np.random.default_rng(0)))
    return UnitNumbers(drawn.inputs, drawn.output, weight, scale, drawn.bias), inputs


OTHERS = [pytest.param(cpu, marks=pytest.mark.slow) for cpu in (OLDER, "skylake-avx512", "x86-64-v2")]


@pytest.mark.parametrize("cpu", ["host", *OTHERS])
def test_the_largest_sums_are_exact(cpu: str, tmp_path: Path) -> None:
    target = parse_target(cpu)
    if not target.local:
        pytest.skip("this machine does not run its code")
    for op in ("conv 64x2x2>16 k1s1g1", "conv 16x4x4>16 k3s1g16", "conv 5x4x4>8 k3s1g1"):
        for weights, codes in (("int8", (64, -64)), ("int8-exact", (127, -128)), ("int6", (31, -32))):
            layer = parse_key(f"{op} none w={weights} a=int8")
            numbers, inputs = worst(layer, codes)
            wanted = run_unit(layer, numbers, inputs)
            assert len(np.unique(wanted)) > 1
            found = computed(layer, numbers, inputs, target, tmp_path)
            np.testing.assert_array_equal(found.reshape(wanted.shape), wanted, layer.key())


@st.composite
def odd_units(draw: st.DrawFn) -> Layer:
    """Units whose channels, maps and kernels fill no vector and no group."""
    channels, out, size = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 9))
    kernel, stride = draw(st.sampled_from((1, 3, 5))), draw(st.sampled_from((1, 2)))
    depthwise = channels > 1 and draw(st.booleans())
    return map_layer(
        "conv",
        (channels, size, size),
        channels if depthwise else out,
        kernel,
        stride,
        channels if depthwise else 1,
        draw(st.sampled_from(("none", "relu"))),
        draw(st.sampled_from(("int8", "int8-exact", "int6", "int4", "int2"))),
        "int8",
    )


def check_odd(layer: Layer, seed: int, folder: Path) -> None:
    target, rng = TvmTarget(OLDER), np.random.default_rng(seed)
    numbers = random_numbers(layer, rng, sums=sums_of(target))
    inputs = random_inputs(layer, rng)
    expected = run_unit(layer, numbers, inputs)
    output = computed(layer, numbers, inputs, target, folder)
    np.testing.assert_array_equal(output.reshape(expected.shape), expected, layer.key())


needs_avx2 = pytest.mark.skipif(not TvmTarget(OLDER).local, reason="this machine does not run AVX2 code")


@needs_avx2
@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_units(), st.integers(0, 2**31))
def test_odd_units_are_exact_on_avx2(tmp_path: Path, layer: Layer, seed: int) -> None:
    check_odd(layer, seed, tmp_path)


@needs_avx2
@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_units(), st.integers(0, 2**31))
def test_many_odd_units_are_exact_on_avx2(tmp_path: Path, layer: Layer, seed: int) -> None:
    check_odd(layer, seed, tmp_path)

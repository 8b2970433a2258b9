"""Units of integer-only networks: the kernels give what `hw_profiles.reference` says, bit for bit, and have
no floating point in them.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.reference.integer_ops import UnitNumbers, run_unit
from hw_profiles.reference.random_units import random_inputs, random_numbers
from hw_profiles.runtimes.tvm_cpu.compile import compile_candidate, link_shared
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, host_target
from hw_profiles.runtimes.tvm_cpu.templates import refusal, template_of
from hw_profiles.runtimes.tvm_cpu.tuning import run_locally
from hw_profiles.runtimes.tvm_cpu.unit import Array

UNITS = (
    'MatMul batch,5,24:int8 none w=int8 {"bias":1,"weight":[24,20]}',
    'MatMul batch,5,24:int8 none w=int8 {"bias":1,"to":"int16","weight":[24,16]}',
    "MatMul batch,2,5,6:int8 batch,2,6,7:int8 none w=fp32",
    "Softmax batch,2,5,7:int8 none w=fp32",
    "Gelu batch,5,12:int8 none w=fp32",
    'LayerNormalization batch,5,24:int16 none w=fp32 {"to":"int8","weight":[24]}',
    'LayerNormalization batch,3,10:int16 none w=fp32 {"weight":[10]}',
    "Add batch,5,6:int16 batch,5,6:int16 none w=fp32",
    'Add batch,4,3,2:int16 batch,4,3,2:int16 relu w=fp32 {"to":"int8"}',
    'Add batch,4,3,2:int16 none w=fp32 {"maps":3,"weight":[4,3,2]}',
    'Conv batch,8,4,4:int8 relu w=int8 {"to":"int16","weight":[16,8,1,1]}',
    'QuantizeLinear batch,5,6:int16 none w=fp32 {"to":"int8"}',
    'Gather batch,6:int64 none w=fp32 {"to":"int16","weight":[11,4]}',
    'Reshape batch,4,3,2:int16 none w=fp32 {"maps":1,"shape":[0,0,-1]}',
    "Softmax batch,2,5,7:int8 batch,1,1,7:bool none w=fp32",
    "Tanh batch,40:int8 none w=fp32",
    'Less batch,16:int64 none w=fp32 {"value":8}',
)
MORE_UNITS = (
    'Conv batch,16,4,4:int8 none w=int8 {"group":16,"pads":[1,1,1,1],"to":"int16","weight":[16,1,3,3]}',
    'Conv batch,8,4,4:int8 relu6 w=int4 {"to":"int16","weight":[16,8,1,1]}',
    'Transpose batch,4,3,5:int8 none w=fp32 {"perm":[0,3,1,2]}',
    'Reshape batch,4,6:int8 none w=fp32 {"maps":2,"shape":[0,0,-1,2]}',
    'Slice batch,4,9:int8 none w=fp32 {"axes":[2],"ends":[-1],"starts":[1],"steps":[2]}',
    'Gather batch,6,4:int8 none w=fp32 {"axis":1,"indices":0}',
    'Gather batch,6,4:int8 none w=fp32 {"axis":1,"indices":[3,-1]}',
    'Reshape batch,16:bool none w=fp32 {"shape":[0,1,1,-1]}',
    'Expand batch,1,4:int8 none w=fp32 {"shape":["batch",3,4]}',
    'MatMul batch,5,24:int8 none w=int8 {"bias":1,"to":"fp32","weight":[24,5]}',
)


def computed(
    layer: Layer, target: TvmTarget, folder: Path, numbers: UnitNumbers, inputs: tuple[Array, ...]
) -> Array:
    """Return what a kernel gives."""
    candidate = compile_candidate(layer, target, template_of(layer).tiles(layer, target)[0])
    assert candidate.error is None, candidate.error
    (folder / "unit.o").write_bytes(candidate.code)
    link_shared(target, [str(folder / "unit.o")], folder / "unit.so")
    arrays = [*inputs, *template_of(layer).pack(layer, numbers, target, candidate.tile)]
    shaped = [a.reshape(b.shape) for a, b in zip(arrays, candidate.arguments, strict=False)]
    last = candidate.arguments[-1]
    output, _ = run_locally(folder / "unit.so", candidate.symbol, [*shaped, np.zeros(last.shape, last.dtype)])
    return output


def check(layer: Layer, target: TvmTarget, folder: Path) -> None:
    """Compare one unit with the reference, and look at its code."""
    rng = np.random.default_rng(list(layer.key().encode()))
    numbers, inputs = random_numbers(layer, rng, sums=sums_of(target)), random_inputs(layer, rng)
    expected = run_unit(layer, numbers, inputs)
    output = computed(layer, target, folder, numbers, inputs)
    np.testing.assert_array_equal(output.reshape(expected.shape), expected, layer.key())
    least = 2 if layer.out_format == "bool" else 4
    assert len(np.unique(expected)) >= least, "codes that are all alike compare nothing"
    if layer.out_format != "fp32":
        function = template_of(layer).schedule(layer, target, template_of(layer).tiles(layer, target)[0])
        assert "float" not in function.script(), layer.key()


@pytest.mark.parametrize("key", UNITS)
def test_kernels_are_exact_and_without_floating_point(key: str, host: TvmTarget, tmp_path: Path) -> None:
    check(parse_key(key), host, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("key", MORE_UNITS)
def test_so_are_those_of_other_shapes(key: str, host: TvmTarget, tmp_path: Path) -> None:
    check(parse_key(key), host, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("key", [UNITS[0], UNITS[3], UNITS[4], UNITS[5]])
def test_so_they_are_on_older_processors(key: str, tmp_path: Path) -> None:
    older = TvmTarget("haswell")
    if not older.local:
        pytest.skip("this machine does not run its code")
    check(parse_key(key), older, tmp_path)


@pytest.mark.slow
@given(
    st.sampled_from(["Softmax batch,4,9:int8 none w=fp32", "Gelu batch,4,9:int8 none w=fp32"]),
    st.floats(0.002, 0.045),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=10, deadline=None)
def test_curves_are_exact_at_any_scale(key: str, scale: float, zero_point: int, seed: int) -> None:
    layer, rng = parse_key(key), np.random.default_rng(seed)
    numbers = UnitNumbers(
        (QuantParams(float(np.float32(scale)), zero_point),), QuantParams(float(np.float32(0.01)), 3)
    )
    inputs = random_inputs(layer, rng)
    with TemporaryDirectory() as folder:
        found = computed(layer, host_target(), Path(folder), numbers, inputs)
    np.testing.assert_array_equal(found.reshape(4, 9), run_unit(layer, numbers, inputs))


REFUSED = {
    "Gelu batch,5,12:fp32 none w=fp32": "in integers only",
    'MatMul batch,5,24:fp32 none w=fp32 {"weight":[24,20]}': "in integers only",
    'Softmax batch,5,12:int8 none w=fp32 {"axis":1}': "over the last dimension",
    "MatMul batch,2,5,6:int8 batch,1,6,7:int8 none w=fp32": "equally many matrices",
    "Add batch,5,6:int16 batch,1,6:int16 none w=fp32": "of one shape",
    "Gelu batch,sequence,12:int8 none w=fp32": "bind them by a scenario",
}


def test_no_kernel_is_promised_that_there_is_not() -> None:
    wrong = {
        key: refusal(parse_key(key))
        for key, why in REFUSED.items()
        if why not in (refusal(parse_key(key)) or "")
    }
    assert not wrong

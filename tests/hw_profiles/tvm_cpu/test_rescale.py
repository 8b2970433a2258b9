"""Dyadic rescaling in vectors: what numpy gives, for every processor that this machine can be."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tvm import s_tir, te

from hw_profiles.reference.integer_ops import MAX_SHIFT, requantize
from hw_profiles.runtimes.tvm_cpu.compile import link_shared
from hw_profiles.runtimes.tvm_cpu.epilogue import codes
from hw_profiles.runtimes.tvm_cpu.rescale import rescaled
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target

LANES = 16
Rescale = Callable[[Sequence[NDArray[np.int32]], int], NDArray[np.uint8]]


def kernel(vector: int, target: TvmTarget) -> Any:
    """Codes of (value + offset) * m / 2^c + zero point, `vector` lanes at a time."""
    value, offset, m, c, zero = (te.placeholder((LANES,), "int32", name) for name in "vomcz")
    out = te.compute(
        (LANES,), lambda i: codes(rescaled(value[i], offset[i], m[i], c[i], zero[i], target)), name="out"
    )
    sch = s_tir.Schedule(te.create_prim_func([value, offset, m, c, zero, out]))
    _, lane = sch.split(sch.get_loops(sch.get_sblock("out"))[0], [None, vector])
    sch.vectorize(lane)
    return sch.mod["main"].with_attr("global_symbol", "unit")


def compiled(target: TvmTarget, vector: int, folder: Path) -> Rescale:
    module = tvm.compile(tvm.IRModule({"unit": kernel(vector, target)}), target=target.tvm_target()).mod
    name = f"{target.mcpu}_{vector}"
    module.write_to_file(str(folder / f"{name}.o"))
    link_shared(target, [str(folder / f"{name}.o")], folder / f"{name}.so")
    function = tvm.runtime.load_module(str(folder / f"{name}.so"))["unit"]

    def run(arrays: Sequence[NDArray[np.int32]], zero_point: int) -> NDArray[np.uint8]:
        zeros = np.full(LANES, zero_point, np.int32)
        tensors = [tvm.runtime.tensor(each) for each in (*arrays, zeros, np.zeros(LANES, np.uint8))]
        function(*tensors)
        return np.asarray(tensors[-1].numpy())

    return run


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[Rescale]:
    """Of every kind of vectors that runs here, full ones, half ones and single values."""
    targets = [parse_target(cpu) for cpu in ("host", "haswell", "x86-64-v2")]
    folder = tmp_path_factory.mktemp("rescale")
    return [compiled(target, lanes, folder) for target in targets if target.local for lanes in (16, 8, 1)]


@st.composite
def operands(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(value, offset, m, c) of a sum in 32 bits whose quotient is one in 32 bits too."""
    m = draw(st.one_of(st.integers(2**30, 2**31 - 1), st.integers(1, 2**31 - 1)))
    c = draw(st.integers(1, MAX_SHIFT))
    largest = min(2**31 - 1, (2**31 - 300) * 2**c // m)
    total = draw(st.one_of(st.integers(-largest, largest), st.integers(-300, 300)))
    total = max(-largest, min(largest, total))
    offset = draw(st.integers(max(-(2**31), total - 2**31 + 1), min(2**31 - 1, total + 2**31)))
    return total - offset, offset, m, c


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operands(), min_size=LANES, max_size=LANES), st.integers(0, 255))
def test_codes_are_those_of_numpy(
    kernels: list[Rescale], lanes: list[tuple[int, int, int, int]], zero_point: int
) -> None:
    value, offset, m, c = (np.array(each, np.int32) for each in zip(*lanes, strict=True))
    wanted = requantize(value.astype(np.int64) + offset, m, c, zero_point)
    for run in kernels:
        np.testing.assert_array_equal(run((value, offset, m, c), zero_point), wanted)


def test_ties_are_rounded_up(kernels: list[Rescale]) -> None:
    totals = np.arange(-8, 8, dtype=np.int32)
    offset, m, c = (np.full(LANES, number, np.int32) for number in (0, 2**30, 31))  # half of each
    for run in kernels:
        assert run((totals, offset, m, c), 100).tolist() == [100 + (n + 1) // 2 for n in totals.tolist()]

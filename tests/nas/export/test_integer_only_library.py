"""A network in integers only as a library: every bit of plain numpy, and no floating point within."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm")

from hw_profiles.runtimes.tvm_cpu.standalone import float_operations
from hw_profiles.runtimes.tvm_cpu.target import host_target
from nas.export.library.to_tvm import build_library
from supernet.ptq.integer_only import quantize_integer_only
from tests.supernet.ptq.integer_networks import FAMILIES, by_arithmetic, examples, subnet_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", FAMILIES)
def test_a_library_gives_every_bit_of_the_arithmetic(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    network = quantize_integer_only(subnet_of(family), examples(family, 64))
    library = build_library(network, database=tmp_path / "database", tuned=False)
    assert library.integer_only
    assert float_operations(library.plan, host_target()) == []
    (tmp_path / "model.so").write_bytes(library.code)
    run = ctypes.CDLL(str(tmp_path / "model.so")).trilobit_run
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    tried = examples(family, 12, seed=3)
    wanted = by_arithmetic(network, tried)
    for x, row in zip(tried.numpy(), wanted, strict=True):
        stored = np.ascontiguousarray(x.transpose(1, 2, 0) if x.ndim == 3 else x)
        answer = np.zeros(library.plan.output.shape, np.float32)
        assert run(stored.ctypes.data, answer.ctypes.data) == 0
        np.testing.assert_array_equal(answer.ravel(), row.ravel())

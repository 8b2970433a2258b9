"""A quantization is read as it was written, and nothing else is taken for one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.ort.runtime import open_session
from supernet.ptq.constants import with_constants
from supernet.ptq.quantization_file import load_quantization, save_quantization
from tests.supernet.ptq.test_quantize_model import CHANNELS, pointwise, quantized

FORMATS = ("fp16", "int8", "int4")


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, CHANNELS, 6, 6)).astype(np.float32)
    original = pointwise()
    made = quantized(original, x, *FORMATS)
    made = replace(made, model=with_constants(original, {"w": original.constants["w"] * 2}))
    save_quantization(tmp_path / "quantization.npz", made, original)
    back = load_quantization(tmp_path / "quantization.npz", original)
    assert (back.tensors, back.compensations) == (made.tensors, made.compensations)
    assert back.parameters.keys() == made.parameters.keys()
    for key, parameters in made.parameters.items():
        read = back.parameters[key]
        np.testing.assert_array_equal(read.weight.codes, parameters.weight.codes)
        np.testing.assert_array_equal(read.bias, parameters.bias)
        assert read.weight.codes.dtype == parameters.weight.codes.dtype
        if parameters.weight.scales is not None:
            np.testing.assert_array_equal(read.weight.scales, parameters.weight.scales)
    results = [open_session(each.model.content).run(None, {"x": x[:1]})[0] for each in (made, back)]
    np.testing.assert_array_equal(*results)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "quantization.npz"
    x = np.random.default_rng(0).normal(size=(4, CHANNELS, 6, 6))
    original = pointwise()
    with pytest.raises(TrilobitError, match="can be read"):
        load_quantization(path, original)
    save_quantization(path, quantized(original, x, "int8"), original)
    with pytest.raises(TrilobitError, match="another model"):
        load_quantization(path, pointwise(clip=6.0))
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no archive"):
        path.write_bytes(damaged)
        with pytest.raises(TrilobitError, match="can be read"):
            load_quantization(path, original)

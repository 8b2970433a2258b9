"""Each technique of the post-training kit lowers the error of a layer with planted structure."""

import numpy as np

from supernet.data.samples import Samples
from supernet.imported.model import ImportedModel
from supernet.ptq.quantization import Compensation, Quantization
from supernet.ptq.quantize_model import quantize_model
from tests.supernet.ptq.imported_models import imported_model, node

CHANNELS = 16


def pointwise(x_shape: tuple[int, ...] = (CHANNELS, 6, 6), clip: float = 0.0) -> ImportedModel:
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(CHANNELS, CHANNELS, 1, 1)).astype(np.float32) / 4,
        "v": rng.normal(size=(CHANNELS, CHANNELS, 1, 1)).astype(np.float32) / 4,
        "zero": np.array(0, np.float32),
        "top": np.array(clip, np.float32),
    }
    activation = (
        node("Clip", ["a", "zero", "top"], "y") if clip else node("Transpose", ["a"], "y", perm=[0, 1, 3, 2])
    )
    nodes = [node("Conv", ["x", "w"], "a"), activation, node("Conv", ["y", "v"], "z")]
    return imported_model(nodes, constants, {"x": (1, *x_shape)}, ["z"])


def quantized(model: ImportedModel, x: np.ndarray, *formats: str) -> Quantization:
    samples = Samples({"x": x[:, None].astype(np.float32)})
    by_unit = {unit.name: formats for unit in model.units}
    return quantize_model(model, samples, by_unit, rng=np.random.default_rng(0))


def bought(quantization: Quantization, technique: str) -> list[Compensation]:
    return [each for each in quantization.compensations if technique in each.technique]


def test_every_unit_has_numbers_in_every_format() -> None:
    x = np.random.default_rng(1).normal(size=(8, CHANNELS, 6, 6))
    result = quantized(pointwise(), x, "fp32", "fp16", "int8", "int8-exact", "int4", "int2")
    units = {"a.Conv", "z.Conv"}
    assert result.parameters.keys() == {
        (unit, fmt) for unit in units for fmt in ("fp16", "int8", "int8-exact", "int4", "int2")
    }
    assert result.tensors.keys() == {"x", "a", "y", "z"}
    assert result.tensors["a"] == result.tensors["y"]  # a Transpose moves values
    assert all(each.after < each.before for each in result.compensations)


def test_a_few_outliers_do_not_set_the_range() -> None:
    x = np.random.default_rng(1).normal(size=(8, CHANNELS, 96, 96)).clip(-2, 2)
    x[3, 5, 2, 2] = 300.0  # one of a million: to clip it costs less than to make every step wider
    result = quantized(pointwise(x.shape[1:]), x, "int8")
    assert result.tensors["x"].scale * 255 < 300
    (choice,) = (each for each in bought(result, "range") if each.where == "x")
    assert choice.after < 0.5 * choice.before


def test_the_range_after_a_clip_is_inside_it() -> None:
    x = np.abs(np.random.default_rng(1).normal(size=(8, CHANNELS, 6, 6))) * 20
    for clip in (6.0, 0.7, 1 / 3):
        params = quantized(pointwise(clip=clip), x, "int8").tensors["y"]
        assert params.zero_point == 0
        assert np.float32(params.scale) * np.float32(255) <= np.float32(clip)
        assert params.scale * 255 > 0.99 * clip


def test_the_mean_that_rounding_shifts_is_put_back() -> None:
    x = np.abs(np.random.default_rng(1).normal(size=(16, CHANNELS, 6, 6))) + 3  # far from a mean of zero
    result = quantized(pointwise(), x, "int4")
    (correction,) = (each for each in bought(result, "bias") if each.where == "a.Conv")
    assert correction.after < 0.5 * correction.before

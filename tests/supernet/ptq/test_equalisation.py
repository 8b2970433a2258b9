"""Channels are scaled where that lowers errors, and the function stays what it was."""

import numpy as np

from hw_profiles.runtimes.ort.runtime import open_session
from supernet.data.samples import Samples
from supernet.imported.model import ImportedModel
from supernet.ptq.channel_ties import channel_ties, scaled_constants
from supernet.ptq.constants import with_constants
from supernet.ptq.quantization import Quantization
from supernet.ptq.quantize_model import quantize_model
from tests.supernet.ptq.imported_models import imported_model, node

CHANNELS = 8
RNG = np.random.default_rng(0)
SPREAD = 2.0 ** np.linspace(-4, 4, CHANNELS, dtype=np.float32)  # of ranges of channels, as planted


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def pair(activation: str) -> ImportedModel:
    """Two convolutions, of which the first gives channels of very different ranges; a depthwise one after."""
    constants = {
        "w": normal(CHANNELS, 3, 3, 3) * SPREAD[:, None, None, None],
        "b": normal(CHANNELS) * SPREAD,
        "d": normal(CHANNELS, 1, 3, 3),
        "v": normal(5, CHANNELS, 1, 1) / SPREAD[:, None, None],
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    ends = ["zero", "six"] if activation == "Clip" else []
    nodes = [
        node("Conv", ["x", "w", "b"], "a", pads=[1] * 4),
        node(activation, ["a", *ends], "y"),
        node("Conv", ["y", "d"], "m", group=CHANNELS),
        node("Relu", ["m"], "n"),
        node("Conv", ["n", "v"], "z"),
    ]
    used = {name: array for name, array in constants.items() if any(name in each.input for each in nodes)}
    return imported_model(nodes, used, {"x": (1, 3, 8, 8)}, ["z"])


def residual() -> ImportedModel:
    """A residual stream that two convolutions give, and two read."""
    constants = {
        "w": normal(CHANNELS, 3, 1, 1) * SPREAD[:, None, None, None],
        "u": normal(12, CHANNELS, 1, 1) / SPREAD[:, None, None],
        "v": normal(CHANNELS, 12, 1, 1) * SPREAD[:, None, None, None],
        "o": normal(5, CHANNELS, 1, 1) / SPREAD[:, None, None],
    }
    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("Conv", ["a", "u"], "b"),
        node("Relu", ["b"], "c"),
        node("Conv", ["c", "v"], "d"),
        node("Add", ["a", "d"], "e"),
        node("Conv", ["e", "o"], "z"),
    ]
    return imported_model(nodes, constants, {"x": (1, 3, 8, 8)}, ["z"])


def normed() -> ImportedModel:
    """A layer norm with outlier channels before a matrix product."""
    constants = {
        "scale": SPREAD.copy(),
        "shift": normal(CHANNELS),
        "w": normal(CHANNELS, 12) / SPREAD[:, None],
    }
    nodes = [
        node("LayerNormalization", ["x", "scale", "shift"], "y", axis=-1),
        node("MatMul", ["y", "w"], "z"),
    ]
    return imported_model(nodes, constants, {"x": (1, 10, CHANNELS)}, ["z"])


def grouped() -> ImportedModel:
    constants = {"w": normal(CHANNELS, 3), "b": normal(CHANNELS), "g": normal(6, CHANNELS // 2, 1)}
    nodes = [
        node("Gemm", ["x", "w", "b"], "a", transB=1),
        node("Unsqueeze", ["a", "last"], "y"),
        node("Conv", ["y", "g"], "z", group=2),
    ]
    return imported_model(nodes, {**constants, "last": np.array([2])}, {"x": (1, 3)}, ["z"])


def result(model: ImportedModel, x: np.ndarray) -> np.ndarray:
    (value,) = open_session(model.content).run(None, {"x": x})
    return np.asarray(value)


def images(model: ImportedModel, n: int = 16) -> np.ndarray:
    return normal(n, *model.shapes["x"])


def quantized(model: ImportedModel, fmt: str = "int8") -> Quantization:
    formats = {unit.name: ("fp32", fmt) for unit in model.units if unit.weighted}
    samples = Samples({"x": images(model)})
    return quantize_model(model, samples, formats, rng=np.random.default_rng(0))


def test_any_positive_factors_leave_the_function_alone() -> None:
    differences = {}
    for name, model in {"pair": pair("Relu"), "residual": residual(), "norm": normed()}.items():
        scaled = model
        for tie in channel_ties(model):
            factors = np.exp(normal(tie.channels))
            scaled = with_constants(scaled, scaled_constants(scaled.constants, tie, factors))
        x = images(model)[0]
        exact = result(model, x)
        assert scaled.content != model.content, name
        differences[name] = np.abs(result(scaled, x) - exact).max() / np.abs(exact).max()
    assert max(differences.values()) < 1e-5, differences


def test_planted_differences_between_channels_are_evened_out() -> None:
    for name, model, technique in (
        ("pair", pair("Relu"), "equalisation"),
        ("residual", residual(), "equalisation"),
        ("norm", normed(), "migration"),
    ):
        quantization = quantized(model)
        bought = [each for each in quantization.compensations if each.technique == technique]
        assert bought, name
        assert min(each.after / each.before for each in bought) < 0.2, (name, bought)
        x = images(model)[0]
        np.testing.assert_allclose(result(quantization.model, x), result(model, x), rtol=1e-3, atol=1e-3)


def test_clips_and_what_is_unknown_stop_it() -> None:
    clipped = pair("Clip")
    assert {tie.tensors for tie in channel_ties(clipped)} == {("m", "n")}  # never across the clip
    assert not channel_ties(grouped())  # nothing is said of Unsqueeze, nor of what the network reads or gives

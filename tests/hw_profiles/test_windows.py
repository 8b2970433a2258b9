"""Windows of any kernel, stride and padding: numpy's arithmetic of them agrees with torch's."""

import numpy as np
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.windows import windows_of
from hw_profiles.reference.integer_ops import run_unit
from hw_profiles.reference.random_units import random_inputs, random_numbers
from supernet.graph.operations import Constants, computed

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
REAL_ERROR = 1e-5  # float32 sums in another order


@st.composite
def layers(draw: st.DrawFn, fmt: str) -> Layer:
    """A layer with windows, of any kind that has some."""
    kernel, strides = draw(PAIRS), draw(PAIRS)
    channels = draw(st.sampled_from((1, 3, 8)))
    size = (draw(st.integers(3, 7)), draw(st.integers(3, 7)))
    kind = draw(st.sampled_from(("dense", "depthwise", "MaxPool", "AveragePool", "included", "ceil")))
    # torch pads a pool by half of its window at most
    widest = [k - 1 if kind in ("dense", "depthwise") else k // 2 for k in kernel]
    pads = tuple(draw(st.integers(0, widest[i % 2])) for i in range(4))
    x = TensorType(("batch", channels, *size), fmt)
    activation = draw(st.sampled_from(("none", "relu", "relu6")))
    try:
        if kind in ("dense", "depthwise"):
            group = channels if kind == "depthwise" else 1
            weight = (channels if kind == "depthwise" else 5, channels // group, *kernel)
            more = {"weight": weight, "group": group, "strides": strides, "pads": pads}
            return Layer.of("Conv", x, activation=activation, weight_format=fmt, **more)
        op = "MaxPool" if kind == "MaxPool" else "AveragePool"
        ceil = {"ceil_mode": 1} if kind == "ceil" else {}
        included = {"count_include_pad": 1} if kind == "included" else {}
        return Layer.of(op, x, kernel_shape=kernel, strides=strides, pads=pads, **ceil, **included)
    except TrilobitError:  # a window larger than the map
        assume(False)
        raise


def by_torch(layer: Layer, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None) -> np.ndarray:
    """(h, w, out) of real values (h, w, c)."""
    constants = Constants(*(None if a is None else torch.from_numpy(a).double() for a in (weight, bias)))
    image = torch.from_numpy(x.astype(np.float64).transpose(2, 0, 1)[None].copy())
    (y,) = computed(layer, [image], constants)
    return y[0].numpy().transpose(1, 2, 0)


# rounded up, the last window would begin in the padding
BEYOND = Layer.of(
    "AveragePool",
    TensorType(("batch", 1, 4, 3)),
    kernel_shape=(2, 1),
    strides=(2, 1),
    pads=(0, 0, 1, 0),
    ceil_mode=1,
)


@given(layers("fp32"), st.integers(0, 2**16))
@example(BEYOND, 0)
def test_real_windows_are_torchs(layer: Layer, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, (x,) = random_numbers(layer, rng), random_inputs(layer, rng)
    wanted = by_torch(layer, x, numbers.weight, numbers.bias)
    np.testing.assert_allclose(run_unit(layer, numbers, (x,)), wanted, rtol=REAL_ERROR, atol=REAL_ERROR)
    windows = windows_of(layer)
    assert (windows.rows, windows.columns) == layer.out_shape[1:]


@given(layers("int8"), st.integers(0, 2**16))
def test_integer_windows_are_the_real_ones_up_to_rounding(layer: Layer, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, (x,) = random_numbers(layer, rng), random_inputs(layer, rng)
    read, written = numbers.input(), numbers.written
    real, weight, bias = (x.astype(np.float64) - read.zero_point) * read.scale, None, None
    if layer.weighted:
        codes, scale, bias = numbers.parameters
        weight = codes * scale[:, None, None, None]
    wanted = by_torch(layer, real, weight, bias) / written.scale + written.zero_point
    # the bias is rounded to a step of the accumulator, the sum to a code
    assert np.abs(run_unit(layer, numbers, (x,)) - np.clip(wanted, 0, 255)).max() <= 0.51

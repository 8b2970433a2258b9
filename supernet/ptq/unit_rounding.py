"""Rounds the weights of one unit to one format, and keeps what lowers the error of its outputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import QuantParams
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.formats.weight_format import WeightFormat
from supernet.graph.quantized_graph import Parameters
from supernet.ptq.bias_correction import corrected_bias
from supernet.ptq.error_feedback import by_group, round_with_feedback
from supernet.ptq.moments import LARGEST, Moments, affordable_by_output, moments_by_output, moments_of
from supernet.ptq.product import Product
from supernet.ptq.quantization import Compensation
from supernet.ptq.ranges import fake_quantize, relative_error
from supernet.ptq.weight_grid import is_grid, weight_grid
from supernet.ptq.weight_ranges import narrow_ranges

Array = NDArray[np.float32]
_NO_BIAS = np.zeros(0, np.float32)
_FITTED = 0.75  # of the rows; the rest, of other samples, decides what is kept
_CUT_OFF = 0.05  # what a sum matters that the activation cuts off: rounding may bring it back
_FEWEST = 8  # rows that are parted


@dataclass(frozen=True, eq=False)
class UnitInputs:
    """A product on sampled inputs, in real numbers and as the quantized unit reads them.

    Attributes:
        rows, given: (groups, n, k).
    """

    product: Product
    rows: Array
    given: Array

    @cached_property
    def fitted(self) -> int:
        """How many rows techniques learn from: the first."""
        n = self.rows.shape[1]
        return n if n < _FEWEST else int(n * _FITTED)

    @cached_property
    def judged(self) -> slice:
        """The rows that decide what is kept."""
        n = self.rows.shape[1]
        return slice(0 if self.fitted == n else self.fitted, n)

    @cached_property
    def exact_sums(self) -> Array:
        """(n, out) of the fp32 unit, without bias."""
        return self.product.sums(self.rows)

    @cached_property
    def activity(self) -> Array | None:
        """(n, out) how much each sum matters: hardly where the activation cuts it off; None without one."""
        low, high = self.product.bounds
        if low == -np.inf and high == np.inf:
            return None
        sums = self.exact_sums + self.product.bias
        return np.where((sums > low) & (sums < high), np.float32(1), np.float32(_CUT_OFF))

    @cached_property
    def moments(self) -> Moments:
        """The quadratic form of the error on the rows that are learned from."""
        product, part = self.product, slice(0, self.fitted)
        rows, given, centred = self.rows[:, part], self.given[:, part], product.correctable
        if self.activity is None or not affordable_by_output(product.weight, self.fitted):
            return moments_of(product.weight, rows, given, centred=centred)
        return moments_by_output(product.weight, rows, given, self.activity[part], centred=centred)

    def error(self, sums: Array, bias: Array) -> float:
        """Return the relative squared error of outputs, of the rows that are judged by."""
        exact = self.product.activated(self.exact_sums[self.judged] + self.product.bias)
        return relative_error(self.product.activated(sums[self.judged] + bias), exact)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A rounded weight with its bias."""

    weight: QuantizedTensor
    bias: Array
    error: float


def unit_inputs(product: Product, rows: Array, codes: QuantParams | None) -> UnitInputs:
    """Return a product on rows that are rounded to codes; None leaves them as they are."""
    return UnitInputs(product, rows, rows if codes is None else fake_quantize(rows, codes))


def round_unit(
    inputs: UnitInputs, name: str, weight_format: WeightFormat, *, learned: bool = True
) -> tuple[Parameters, tuple[Compensation, ...]]:
    """Return the weight and the bias of a unit in the format `name`, and what each technique bought.

    Args:
        learned: whether there is time to round weights with feedback.
    """
    product = inputs.product
    nearest = weight_format.encode(product.stored)
    if not inputs.rows.shape[1] or not weight_format.needs_scale:
        return Parameters(nearest, product.bias if product.correctable else _NO_BIAS), ()
    best = _trial(inputs, weight_format, nearest, corrected=False)
    bought = []
    for technique, weight in _rounded(inputs, weight_format, nearest, learned=learned):
        trial = _trial(inputs, weight_format, weight, corrected=product.correctable)
        if trial.error < best.error:
            bought.append(Compensation(technique, product.unit, name, best.error, trial.error))
            best = trial
    return Parameters(best.weight, best.bias if product.correctable else _NO_BIAS), tuple(bought)


def _rounded(
    inputs: UnitInputs, weight_format: WeightFormat, nearest: QuantizedTensor, *, learned: bool
) -> Iterator[tuple[str, QuantizedTensor]]:
    """Yield techniques with the weight that each gives; to all of them the bias is corrected."""
    product = inputs.product
    if product.correctable:
        yield "bias correction", nearest
    if not learned or not is_grid(weight_format) or product.weight.shape[2] > LARGEST:
        return
    ranges = narrow_ranges(weight_format, inputs.moments, product.stored)
    grid = weight_grid(weight_format, product.stored, 1.0 if ranges is None else ranges)
    if ranges is not None:
        yield "narrower weight range", grid.encoded(product.stored.astype(np.float64), product.shape)
    values = round_with_feedback(inputs.moments, by_group(grid, inputs.moments.target.shape))
    yield "learned rounding", grid.encoded(values.reshape(product.shape), product.shape)


def _trial(
    inputs: UnitInputs, weight_format: WeightFormat, weight: QuantizedTensor, *, corrected: bool
) -> _Trial:
    product = inputs.product
    real = product.by_group(weight_format.decode(weight))
    sums = product.sums(inputs.given, real)
    if not corrected:
        return _Trial(weight, product.bias, inputs.error(sums, product.bias))
    part = slice(0, inputs.fitted)
    activity = inputs.activity
    shown = None if activity is None else activity[part]
    fitted = corrected_bias(product.bias, sums[part], inputs.exact_sums[part], shown)
    every = corrected_bias(product.bias, sums, inputs.exact_sums, activity)
    return _Trial(weight, every, inputs.error(sums, fitted))

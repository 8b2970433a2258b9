"""Rounds the weights of one unit to one format, and keeps what lowers the error of its outputs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import QuantParams
from supernet.formats.loading import load_activation_format, load_format
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.formats.weight_format import WeightFormat
from supernet.graph.quantized_graph import Parameters
from supernet.ptq.bias_correction import corrected_bias
from supernet.ptq.product import Product
from supernet.ptq.quantization import Compensation
from supernet.ptq.ranges import fake_quantize, relative_error

Array = NDArray[np.float32]
_NO_BIAS = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Rounding:
    """A unit that is to be rounded to a format, with the inputs that errors are computed on.

    Attributes:
        product: of the unit.
        rows: (groups, n, k) of its fp32 input.
        codes: of that input; None where the format leaves it in real numbers.
        name: of the format.
        weight_format: what it is for weights on the device.
    """

    product: Product
    rows: Array
    codes: QuantParams | None
    name: str
    weight_format: WeightFormat

    @cached_property
    def given(self) -> Array:
        """(groups, n, k) rows as the quantized unit reads them."""
        return self.rows if self.codes is None else fake_quantize(self.rows, self.codes)

    @cached_property
    def exact_sums(self) -> Array:
        """(n, out) of the fp32 unit, without bias."""
        return self.product.sums(self.rows)

    @cached_property
    def exact(self) -> Array:
        """(n, out) outputs of the fp32 unit."""
        return self.product.activated(self.exact_sums + self.product.bias)

    def sums(self, weight: QuantizedTensor) -> Array:
        """Return the sums (n, out) of a rounded weight."""
        real = self.weight_format.decode(weight)
        return self.product.sums(self.given, self.product.by_group(real))

    def error(self, sums: Array, bias: Array) -> float:
        """Return the relative squared error of the outputs."""
        return relative_error(self.product.activated(sums + bias), self.exact)


def input_codes(fmt: str, rows: Array, static: QuantParams | None) -> QuantParams | None:
    """Return the codes of what a unit in this format reads: stored ones, those of the sampled rows where each
    inference finds them, none where inputs stay real."""
    activation = load_format(load_format(fmt).on).activation
    if activation is None or activation.scaling == "none":
        return None
    if activation.needs_scale:
        return static
    low, high = (float(rows.min()), float(rows.max())) if rows.size else (0.0, 0.0)
    return load_activation_format("int8").params(low, high)


def round_unit(rounding: Rounding) -> tuple[Parameters, tuple[Compensation, ...]]:
    """Return the weight and the bias of a unit in a format, and what each technique bought."""
    product = rounding.product
    compensations: list[Compensation] = []
    weight = rounding.weight_format.encode(product.stored)
    sums, bias = rounding.sums(weight), product.bias
    if product.correctable and sums.size:
        corrected = corrected_bias(bias, sums, rounding.exact_sums)
        before, after = rounding.error(sums, bias), rounding.error(sums, corrected)
        if after < before:
            bias = corrected
            compensations.append(Compensation("bias correction", product.unit, rounding.name, before, after))
    return Parameters(weight, bias if product.correctable else _NO_BIAS), tuple(compensations)

"""Number formats of weights: element type x granularity x type of scale, as frozen data that encodes, decodes
and fake-quantizes itself, and writes itself into ONNX files.

A format that is another combination of these needs no code; one with rules of its own overrides the methods.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hw_profiles.graph.formats import E8M0, FLOAT16, FLOAT32, Codebook, ElementType, Float, Int, NearestCode
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums
from supernet.formats.activation_format import ActivationFormat
from supernet.formats.dynamic_product import dynamic_product
from supernet.formats.grouped_product import grouped_product, has_kernel
from supernet.formats.onnx_weights import OnnxType, OnnxWriter, RealWeight, integer_weight, onnx_type
from supernet.formats.quantized_tensor import (
    PER_CHANNEL,
    SMALLEST_SCALE,
    Array,
    Codes,
    Granularity,
    QuantizedTensor,
)

if TYPE_CHECKING:
    from torch import Tensor

ERROR_SAMPLE = (128, 128)  # channels, weights
REDUCED_BITS = 7  # of signed codes, where integer sums may saturate


@dataclass(frozen=True)
class WeightFormat:
    """A number format of weights.

    Attributes:
        element: what a code is.
        granularity: how many weights share a scale.
        scale: type of the scales.
        offset: added to codes in files, which stores signed ones as unsigned: these have other kernels.
        operand: what matrix products round their other operand to, at each inference; None where they
            multiply it as it is.
    """

    element: ElementType
    granularity: Granularity = PER_CHANNEL
    scale: Float = FLOAT32
    offset: int = 0
    operand: ActivationFormat | None = None

    @property
    def needs_scale(self) -> bool:
        """Whether codes are multiplied with a scale."""
        return not self.element.native

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.element.bits

    @property
    def stored_as(self) -> OnnxType:
        """ONNX tensor type that holds the codes."""
        return onnx_type(self.element, unsigned=self.offset > 0)

    @property
    def zero_points(self) -> bool:
        """Whether the code that stands for 0 is stored with each scale."""
        return isinstance(self.element, Int) and self.element.smallest == 0

    @property
    def on_integer_kernels(self) -> bool:
        """Whether kernels that multiply integers can read it: integers without groups or zero points."""
        return isinstance(self.element, Int) and not self.granularity.group and not self.zero_points

    @property
    def on_ladder(self) -> bool:
        """Whether its codes follow from those of 8 bits by shifts, with one learned scale for all widths."""
        symmetric = isinstance(self.element, Int) and self.element.codes == "symmetric"
        return symmetric and self.granularity == PER_CHANNEL and 2 <= self.bits <= 8

    @property
    def relative_error(self) -> float:
        """Expected squared error of normally distributed weights over their square."""
        return _error_on_normal_weights(self)

    def bits_per_weight(self, shape: tuple[int, ...]) -> float:
        """Return the bits that a weight of this shape takes per element, scales and zero points counted."""
        if not self.needs_scale:
            return self.bits
        beside = self.scale.bits + self.bits * self.zero_points
        return self.bits + beside * prod(self.granularity.scale_shape(shape)) / prod(shape)

    def made_for(self, sums: IntegerSums) -> "WeightFormat":
        """Return what it is on a device that adds so: codes of 7 bits where signed ones are wider than sums
        of 16 bits hold, all else is the same everywhere."""
        signed = isinstance(self.element, Int) and self.element.smallest < 0 and not self.offset
        if sums.reduced and signed and self.element.largest > WIDEST_EXACT:
            return replace(self, element=Int(REDUCED_BITS))
        return self

    def encode(self, weight: Array) -> QuantizedTensor:
        """Return a weight (out, ...) in this format, the largest magnitude that shares a scale at the end of
        the range of codes.

        Native floats are the nearest finite ones, since an overflow would poison everything.
        """
        if not self.needs_scale:
            dtype = np.float16 if self.element == FLOAT16 else np.float32
            largest = np.float32(self.element.largest)
            return QuantizedTensor(np.clip(weight, -largest, largest).astype(dtype, copy=False))
        blocks = self.granularity.blocks(weight)
        scales, zeros = self.scales(blocks)
        codes = self.granularity.whole(_codes(self.element, blocks / scales[..., None], zeros), weight.shape)
        shape = self.granularity.scale_shape(weight.shape)
        stored = None if zeros is None else zeros.astype(np.uint8).reshape(shape)
        return QuantizedTensor(codes, scales.reshape(shape), stored)

    def decode(self, tensor: QuantizedTensor) -> Array:
        """Return the real values (out, ...) that codes stand for."""
        codes, scales = tensor.codes, tensor.scales
        values = codes if isinstance(self.element, Int) or self.element.native else self.element.values[codes]
        if scales is None:
            return values.astype(np.float32)
        blocks = self.granularity.blocks(values.astype(np.float32))
        if tensor.zero_points is not None:
            blocks = blocks - tensor.zero_points.reshape(*blocks.shape[:2], 1)
        real = blocks * scales.reshape(*blocks.shape[:2], 1)
        return self.granularity.whole(real.astype(np.float32), codes.shape)

    def scales(self, blocks: Array) -> tuple[Array, Array | None]:
        """Return the scale of each block of (rows, groups, n), and the code of 0 where it is not 0."""
        if self.zero_points:
            low, high = np.minimum(blocks.min(axis=2), 0), np.maximum(blocks.max(axis=2), 0)
            scale = np.maximum((high - low) / self.element.largest, SMALLEST_SCALE).astype(np.float32)
            return scale, np.rint(-low / scale)
        largest = np.abs(blocks).max(axis=2)
        if isinstance(self.element, Int) and self.element.codes == "full":
            # one code more on the negative side: the largest magnitude takes it, whatever its sign
            signs = np.where(blocks.max(axis=2) >= largest, 1, -1)
            magnitude = np.maximum(largest / -self.element.smallest, SMALLEST_SCALE)
            return (-signs * self._stored_scale(magnitude)).astype(np.float32), None
        if self.scale == E8M0:  # a power of two by which the largest has the exponent of the largest code
            exponent = np.frexp(largest)[1] - np.frexp(self.element.largest)[1]
            return np.exp2(np.clip(exponent, -126, 127)).astype(np.float32), None
        return self._stored_scale(np.maximum(largest / self.element.largest, SMALLEST_SCALE)), None

    def _stored_scale(self, scale: Array) -> Array:
        """Return scales above 0 as their type holds them."""
        scale = scale.astype(np.float32)
        if self.scale == FLOAT16:
            scale = np.maximum(scale.astype(np.float16), np.finfo(np.float16).smallest_subnormal)
        return scale.astype(np.float32)

    def fake_quantize(self, weight: "Tensor") -> "Tensor":
        """Return a weight rounded to this format, as real values; gradients pass straight through."""
        from supernet.formats.fake_quantize import straight_through  # torch: only where something is trained

        return straight_through(weight, partial(_rounded, self))

    def lower(self, writer: OnnxWriter, name: str, tensor: QuantizedTensor, real: OnnxType) -> str:
        """Write a weight for kernels that compute in real numbers, and return the name of its values.

        Args:
            real: type that they compute in.
        """
        if tensor.scales is None:  # in the type that the layer computes in, or half of it
            if self.element != FLOAT16 or real != "FLOAT":
                return writer.typed(f"{name}.w", tensor.codes, real)
            return writer.node(
                "Cast", f"{name}.w", [writer.typed(f"{name}.wc", tensor.codes, "FLOAT16")], to=real
            )
        weight = RealWeight(writer, name, self.element, self.granularity, tensor, tensor.scales)
        if real == "FLOAT":
            return weight.write(f"{name}.w")
        return writer.node("Cast", f"{name}.w", [weight.write(f"{name}.wf")], to=real)

    def lower_rows(
        self, writer: OnnxWriter, name: str, ids: str, tensor: QuantizedTensor, rank: int
    ) -> str | None:
        """Write the rows of a table that ids of so many dimensions choose, where scales are those of groups.

        Returns:
            `name`, that of the rows; None where `lower` has to write the table.
        """
        integers = isinstance(self.element, Int) and not self.zero_points
        if not (self.granularity.group and integers and tensor.scales is not None):
            return None
        table = RealWeight(writer, name, self.element, self.granularity, tensor, tensor.scales)
        return table.write_rows(name, ids, rank)

    def lower_linear(
        self, writer: OnnxWriter, name: str, x: str, tensor: QuantizedTensor, bias: Array
    ) -> str | None:
        """Write a whole linear layer on real numbers, where a kernel reads such weights as they are.

        Args:
            x: name of the float32 input (..., in).
            bias: (out,), or (0,) without.

        Returns:
            `name`, that of its output; None where `lower` has to write the weight for the usual kernel.
        """
        if not self.whole("MatMul"):
            return None
        if not self.granularity.group:
            return dynamic_product(writer, name, x, tensor, bias)
        assert isinstance(self.element, Int)
        weight = (self.granularity, tensor)
        return grouped_product(writer, name, x, weight, bias, self.element, self.operand)

    def whole(self, op: str) -> bool:
        """Return whether `lower_linear` writes products of this operation on real numbers."""
        if op not in ("Gemm", "MatMul"):
            return False
        by_channel = self.operand is not None and self.on_integer_kernels
        return by_channel or has_kernel(self.element, self.granularity, self.operand)

    def lower_integers(
        self,
        writer: OnnxWriter,
        name: str,
        tensor: QuantizedTensor,
        *,
        zeros: bool,
        transposed: bool = False,
    ) -> str:
        """Write a weight for kernels that multiply integers, its scales as `NAME.ws`, and return the name of
        its values.

        Args:
            zeros: whether zero points are written even where they are 0.
            transposed: write a matrix (out, in) as (in, out).
        """
        return integer_weight(
            writer,
            name,
            tensor,
            self.stored_as,
            offset=self.offset,
            zeros=zeros,
            transposed=transposed,
        )


@cache
def _error_on_normal_weights(number_format: WeightFormat) -> float:
    weight = np.random.default_rng(0).standard_normal(ERROR_SAMPLE, np.float32)
    return float(((_rounded(number_format, weight) - weight) ** 2).sum() / (weight**2).sum())


def _rounded(number_format: WeightFormat, weight: Array) -> Array:
    return number_format.decode(number_format.encode(weight))


def _codes(element: ElementType, steps: Array, zeros: Array | None) -> Codes:
    """Return the codes nearest to real values (rows, groups, n) over their scale."""
    if isinstance(element, Int):
        shifted = np.rint(steps) if zeros is None else np.rint(steps) + zeros[..., None]
        dtype = np.uint8 if element.smallest == 0 else np.int8
        return np.asarray(np.clip(shifted, element.smallest, element.largest), dtype)
    assert isinstance(element, Float | Codebook)
    table = NearestCode.of(element)
    return np.asarray(table.codes[np.searchsorted(table.thresholds, steps, side="left")], np.uint8)

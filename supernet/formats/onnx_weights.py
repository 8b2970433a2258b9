"""How weights are written into ONNX files, by element type; engine-free: a writer takes names and arrays.

Kernels that compute in real numbers get values that the runtime makes of the codes: by Cast (a codebook:
Gather) and Mul, which ONNX Runtime folds when it loads a file, so that a layer is as fast as in fp32. Its
DequantizeLinear stays in the graph and runs at every inference (measured on AVX512: 7 to 45 % more for a
convolution, up to ten times for a classifier). Scales of groups have no such form; they are blocked
DequantizeLinear.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import FLOAT16, FLOAT32, ElementType, Float, Int
from supernet.formats.quantized_tensor import Codes, Granularity, QuantizedTensor

OnnxType = str  # the name of an ONNX tensor type, such as `INT4`
OPSET = 21  # the first with 4-bit tensors
# the first opset that has a tensor type; others are older than all that is written here
OPSETS: Mapping[OnnxType, int] = {
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E5M2"), 19),
    **dict.fromkeys(("INT4", "UINT4"), OPSET),
    **dict.fromkeys(("INT2", "UINT2"), 25),
}
# floats that ONNX Runtime reads; of FLOAT4E2M1 it has no kernel (1.31), so that one is indices, as small
_FLOATS: Mapping[ElementType, OnnxType] = {
    FLOAT32: "FLOAT",
    FLOAT16: "FLOAT16",
    Float(4, 3, "nan"): "FLOAT8E4M3FN",
    Float(5, 2): "FLOAT8E5M2",
}


class OnnxWriter(Protocol):
    """What puts nodes and constants into an ONNX graph."""

    def typed(self, name: str, values: NDArray[Any], onnx_type: OnnxType) -> str:
        """Add a constant whose values are stored in an ONNX type, and return its name."""
        ...

    def node(
        self, op: str, name: str, inputs: list[str], *, more: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add a node whose first output has this name, and return that; `to` may be an ONNX type's name.

        Args:
            more: names of its further outputs.
        """
        ...


def onnx_type(element: ElementType, *, unsigned: bool = False) -> OnnxType:
    """Return the narrowest ONNX type that holds an element's codes; floats that it has no type for are
    indices, as those of a codebook."""
    if not isinstance(element, Int) and in_onnx(element):
        return _FLOATS[element]
    width = next(width for width in (2, 4, 8) if element.bits <= width)
    signed = isinstance(element, Int) and element.smallest < 0 and not unsigned
    return f"{'' if signed else 'U'}INT{width}"


def bits_of(name: OnnxType) -> int:
    """Return the bits of one number of an ONNX type.

    >>> bits_of("UINT4"), bits_of("FLOAT")
    (4, 32)
    """
    return int(re.findall(r"\d+", name)[0]) if name != "FLOAT" else 32


@dataclass(frozen=True)
class RealWeight:
    """A weight (out, ...) with scales, for kernels that compute in real numbers.

    Attributes:
        writer: of the file.
        name: of the layer; what is written has names that begin with it.
        element, granularity: of the number format.
        tensor, scales: codes, and their scales.
    """

    writer: OnnxWriter
    name: str
    element: ElementType
    granularity: Granularity
    tensor: QuantizedTensor
    scales: NDArray[np.float32]

    def write(self, result: str) -> str:
        """Write the codes and what makes values of them, which have the name `result`."""
        if not in_onnx(self.element):
            return self._looked_up(result)
        if self.scales.ndim == 2 or self.tensor.zero_points is not None:
            return self._dequantized(result)
        value = self.writer.node("Cast", f"{self.name}.wr", [self._codes(self.tensor.codes)], to="FLOAT")
        return self._scaled(result, value, self._by_channel())

    def write_rows(self, result: str, ids: str, rank: int) -> str:
        """Write a table of integers in groups, and real values of the rows that ids (of this rank) choose.

        Only these rows become real at an inference; `write` would make the whole table real, each time.
        """
        assert isinstance(self.element, Int)
        writer, name, width = self.writer, self.name, prod(self.tensor.codes.shape[1:])
        blocks = self.granularity.blocks(self.tensor.codes)
        codes = writer.typed(f"{name}.wc", blocks, onnx_type(self.element))
        if self.element.bits < 8:  # widened when the runtime loads the file
            codes = writer.node("Cast", f"{name}.wc8", [codes], to="INT8")
        rows = writer.node("Gather", f"{name}.codes", [codes, ids])
        values = writer.node("Cast", f"{name}.real", [rows], to="FLOAT")
        scales = writer.typed(f"{name}.ws", self.scales[..., None], "FLOAT")
        scale = writer.node("Gather", f"{name}.scale", [scales, ids])
        values = writer.node("Mul", f"{name}.values", [values, scale])
        whole = blocks.shape[1] * blocks.shape[2]
        row = (*(0,) * rank, whole)
        if whole == width:
            return self._reshaped(result, values, row)
        value = self._reshaped(f"{name}.filled", values, row)
        ends = {"first": 0, "last": width, "axis": rank}
        places = [writer.typed(f"{name}.{key}", np.array([end]), "INT64") for key, end in ends.items()]
        return writer.node("Slice", result, [value, *places])

    def _codes(self, codes: Codes) -> str:
        """Write codes in the type that ONNX has for them; where it has none, as indices."""
        known = not isinstance(self.element, Int) and in_onnx(self.element)
        values = codes if isinstance(self.element, Int) or not known else self.element.values[codes]
        return self.writer.typed(f"{self.name}.wc", values, onnx_type(self.element))

    def _by_channel(self) -> NDArray[np.float32]:
        """Return scales () or (out,) in a shape that broadcasts against the weight."""
        return (
            self.scales.reshape(-1, *(1,) * (self.tensor.codes.ndim - 1)) if self.scales.ndim else self.scales
        )

    def _scaled(self, result: str, value: str, scales: NDArray[np.float32]) -> str:
        return self.writer.node("Mul", result, [value, self.writer.typed(f"{self.name}.ws", scales, "FLOAT")])

    def _dequantized(self, result: str) -> str:
        """Write a DequantizeLinear, blocked where groups share a scale."""
        codes, zeros, group = self.tensor.codes, self.tensor.zero_points, self.granularity.group
        inputs = [
            self._codes(codes.reshape(len(codes), -1) if group else codes),
            self.writer.typed(f"{self.name}.ws", self.scales, "FLOAT"),
        ]
        if zeros is not None:
            inputs.append(self.writer.typed(f"{self.name}.wz", zeros, onnx_type(self.element)))
        if not group:
            return self.writer.node("DequantizeLinear", result, inputs, axis=0)
        name = result if codes.ndim == 2 else f"{self.name}.wd"
        value = self.writer.node("DequantizeLinear", name, inputs, axis=1, block_size=group)
        return value if codes.ndim == 2 else self._reshaped(result, value, codes.shape)

    def _looked_up(self, result: str) -> str:
        """Write indices, and Gather and Mul; groups are filled up to a whole size, and cut after that."""
        assert not isinstance(self.element, Int)
        writer, name, shape = self.writer, self.name, self.tensor.codes.shape
        group = self.granularity.group
        codes = self.granularity.blocks(self.tensor.codes) if group else self.tensor.codes
        indices = writer.node("Cast", f"{name}.wi", [self._codes(codes)], to="INT32")
        table = writer.typed(f"{name}.wt", np.nan_to_num(self.element.values), "FLOAT")
        values = writer.node("Gather", f"{name}.wv", [table, indices])
        if not group:
            return self._scaled(result, values, self._by_channel())
        value = self._scaled(f"{name}.wm", values, self.scales[..., None])
        value = self._reshaped(f"{name}.wp", value, (len(codes), -1))
        ends = {"first": 0, "last": prod(shape[1:]), "axis": 1}
        places = [writer.typed(f"{name}.{key}", np.array([end]), "INT64") for key, end in ends.items()]
        return self._reshaped(result, writer.node("Slice", f"{name}.wn", [value, *places]), shape)

    def _reshaped(self, result: str, value: str, shape: tuple[int, ...]) -> str:
        sizes = self.writer.typed(f"{result}.shape", np.array(shape), "INT64")
        return self.writer.node("Reshape", result, [value, sizes])


def integer_weight(
    writer: OnnxWriter,
    name: str,
    tensor: QuantizedTensor,
    stored_as: OnnxType,
    *,
    offset: int,
    zeros: bool,
    transposed: bool = False,
) -> str:
    """Write integers of 8 bits per output channel; fewer are stored packed and widened by a Cast, which the
    runtime folds at load.

    DequantizeLinear could read 4-bit codes itself, but then no integer kernel is chosen: a fifth of the
    speed.

    Args:
        transposed: write a matrix (out, in) as (in, out).
    """
    scales = writer.typed(f"{name}.ws", tensor.channel_scales, "FLOAT")
    matrix = tensor.codes.T if transposed else tensor.codes
    codes = writer.typed(f"{name}.wc", matrix.astype(np.int16) + offset, stored_as)
    if stored_as != (wide := "UINT8" if offset else "INT8"):
        codes = writer.node("Cast", f"{name}.wc8", [codes], to=wide)
    inputs = [codes, scales]
    if offset or zeros:
        inputs.append(writer.typed(f"{name}.wz", np.full(len(tensor.codes), offset), wide))
    return writer.node("DequantizeLinear", f"{name}.w", inputs, axis=int(transposed))


def in_onnx(element: ElementType) -> bool:
    """Return whether there is an ONNX type of such numbers that kernels read; others are indices into a table
    of their values."""
    return isinstance(element, Int) or element in _FLOATS

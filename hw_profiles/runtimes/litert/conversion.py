"""A network while it is converted from ONNX to LiteRT: which tensor of the file holds what, in which order.

Maps have their channels first in ONNX and last in LiteRT. A tensor is kept as whoever computes it gives it,
and transposed, once, where somebody reads it otherwise. Codes are ONNX's less 128. What dequantizes is not
written: it is noted (`View`), and whoever reads it takes the codes, or has real numbers made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.flat_model import FlatModel, FlatTensor
from hw_profiles.runtimes.litert.onnx_source import Array, Node, Source

Order = Literal["first", "last"]  # where channels are
FIRST: Order = "first"
LAST: Order = "last"
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
MAPS = 4  # dimensions of what can have its channels last
OFFSET = 128  # between unsigned codes and the signed ones of LiteRT
INT8 = "int8"
_WIDTHS = {"float16": "float32", "bool": "bool"}
# the newest version of an operation that its types need; others are the first
_VERSIONS: Mapping[tuple[str, str], int] = {
    ("CONV_2D", INT8): 3,
    ("DEPTHWISE_CONV_2D", INT8): 3,
    ("FULLY_CONNECTED", INT8): 5,
    ("FULLY_CONNECTED", "float32"): 5,
    ("ADD", INT8): 2,
    ("MUL", INT8): 2,
    ("MEAN", INT8): 2,
    ("PAD", INT8): 2,
    ("QUANTIZE", INT8): 2,
    ("DEQUANTIZE", INT8): 2,
    ("DEQUANTIZE", "float16"): 3,
    ("CONCATENATION", INT8): 2,
    ("MAX_POOL_2D", INT8): 2,
    ("AVERAGE_POOL_2D", INT8): 2,
    ("TRANSPOSE", INT8): 2,
    ("STRIDED_SLICE", INT8): 2,
    ("MAXIMUM", INT8): 2,
    ("MINIMUM", INT8): 2,
    ("LOGISTIC", INT8): 2,
    ("SOFTMAX", INT8): 2,
    ("RESIZE_NEAREST_NEIGHBOR", INT8): 3,
    ("RESIZE_NEAREST_NEIGHBOR", "float32"): 3,
    ("RESIZE_BILINEAR", INT8): 3,
    ("RESIZE_BILINEAR", "float32"): 3,
    ("GATHER", INT8): 2,
    **{("BROADCAST_TO", dtype): 3 for dtype in ("float32", INT8, "int32", "int64")},
}


class Codes(NamedTuple):
    """What codes of 8 bits mean: scale x (code - zero)."""

    scale: float
    zero: int


@dataclass(frozen=True)
class View:
    """Real numbers that stand for codes.

    Attributes:
        tensor: name of the codes.
        codes: what whoever reads them takes them for.
    """

    tensor: str
    codes: Codes


@dataclass(frozen=True, eq=False)
class Stored:
    """Stored numbers in codes.

    Attributes:
        codes: int8, or int32 of a bias.
        scales: one, or one for each slice along `axis`.
        axis: see `scales`.
        zero: the code of zero.
    """

    codes: Array
    scales: Array
    axis: int = 0
    zero: int = 0

    @property
    def real(self) -> Array:
        """The numbers that they stand for."""
        shape = [1] * self.codes.ndim
        if self.scales.size > 1:
            shape[self.axis] = -1
        return ((self.codes.astype(np.int64) - self.zero) * self.scales.reshape(shape)).astype(np.float32)

    def transposed(self, axes: Sequence[int]) -> "Stored":
        """Return it with its dimensions in another order."""
        axis = list(axes).index(self.axis) if self.scales.size > 1 else 0
        return Stored(np.ascontiguousarray(self.codes.transpose(axes)), self.scales, axis, self.zero)

    def quantization(self) -> dict[str, Any]:
        """Return how the codes are read, for a tensor of a file."""
        return {"scales": tuple(map(float, self.scales.ravel())), "axis": self.axis, "zero_point": self.zero}


Read = Callable[[str, Order], int]  # from a tensor's name to its place
Give = Callable[[Order], int]  # adds what a node gives; returns its place


class Conversion:
    """What is known while nodes are written, one after the other.

    Args:
        source: what is converted.
        lean: whether memory counts more than time.
    """

    def __init__(self, source: Source, *, lean: bool = False) -> None:
        self.source, self.lean, self.model = source, lean, FlatModel()
        self.places: dict[tuple[str, Order], int] = {}
        self.codes: dict[str, Codes] = {}
        self.views: dict[str, View] = {}
        self.stored: dict[str, Stored] = {}
        self.halves: dict[str, Array] = {}
        self.inputs: dict[str, Order] = {}
        self.finished: set[Node] = set()
        self._relabelled: dict[tuple[str, Codes, Order], int] = {}
        self._names: set[str] = set()

    # -- what is there ---------------------------------------------------------------------------------

    def shape(self, name: str, order: Order = FIRST) -> tuple[int, ...]:
        """Return the shape of a tensor as it lies in memory."""
        shape = self.source.shapes[name]
        return tuple(shape[axis] for axis in TO_LAST) if order == LAST else shape

    def constant(self, name: str) -> Array | None:
        """Return stored numbers; None of what is computed."""
        if name in self.stored:
            return self.stored[name].real
        if name in self.halves:
            return self.halves[name].astype(np.float32)
        return self.source.constants.get(name)

    def is_stored(self, name: str) -> bool:
        """Return whether the file that is converted holds these numbers, in whatever form."""
        return name in self.stored or name in self.halves or name in self.source.constants

    def required(self, node: Node, position: int, what: str) -> Array:
        """Return stored numbers that a node reads.

        Raises:
            TrilobitError: they are computed.
        """
        array = self.constant(node.input(position))
        if array is None:
            raise TrilobitError(f"LiteRT: no {node.op} whose {what} is computed is written ({node.name})")
        return array

    def order_of(self, name: str) -> Order:
        """Return in which order a tensor is to be had without a transposition."""
        if len(self.source.shapes.get(name, ())) != MAPS:
            return FIRST
        held = self.views[name].tensor if name in self.views else name
        if (held, LAST) in self.places:
            return LAST
        if (held, FIRST) in self.places or held not in self.source.inputs:
            return FIRST
        return self._order_of_input(held)

    def _order_of_input(self, name: str) -> Order:
        """Return in which order what reads an input wants it, by whether that begins with a transposition."""
        nodes = list(self.source.readers.get(name, ()))
        while nodes:
            node = nodes.pop()
            if node.op == "Transpose":
                return FIRST if node.integers("perm", ()) == TO_FIRST else LAST
            if len(node.outputs) == 1 and self.source.shapes[node.outputs[0]] == self.source.shapes[name]:
                nodes += self.source.readers.get(node.outputs[0], ())
        return LAST

    # -- reading ---------------------------------------------------------------------------------------

    def read(self, name: str, order: Order = FIRST) -> int:
        """Return the place of a tensor in an order; of codes, what real numbers they stand for."""
        if (name, order) in self.places:
            return self.places[name, order]
        if name in self.views:
            place = self._dequantized(name, order)
        elif self.is_stored(name):
            place = self._constant(name, order)
        elif name in self.source.inputs and name not in self.inputs:
            return self._input(name, order)
        elif (name, other := FIRST if order == LAST else LAST) in self.places:
            place = self._reordered(name, self.places[name, other], order)
        else:
            raise TrilobitError(f"LiteRT: {name} is read before anything gives it")
        self.places[name, order] = place
        return place

    def _input(self, name: str, order: Order) -> int:
        own = self._order_of_input(name) if len(self.shape(name)) == MAPS else FIRST
        self.inputs[name] = own
        self.places[name, own] = self.model.add(self.tensor(name, self.shape(name, own), self._dtype(name)))
        return self.read(name, order)

    def _dequantized(self, name: str, order: Order) -> int:
        view = self.views[name]
        source = self.read_codes(view, order)
        output = self.model.add(self.tensor(name, self.model.tensors[source].shape, "float32"))
        return self.operate("DEQUANTIZE", (source,), output, "DequantizeOptions")

    def _constant(self, name: str, order: Order) -> int:
        axes = TO_LAST if order == LAST else None
        if (stored := self.stored.get(name)) is None:
            array = self.halves[name] if name in self.halves else self.source.constants[name]
            return self.stored_reals(name, array if axes is None else array.transpose(axes))
        return self.stored_reals(name, stored if axes is None else stored.transposed(axes))

    def stored_reals(self, name: str, numbers: Array | Stored) -> int:
        """Store real numbers as they are written in the file that is converted: of those in fewer bits, real
        numbers are made when the file is loaded. A lean file holds these, since they would take memory.
        """
        if self.lean:
            numbers = numbers.real if isinstance(numbers, Stored) else numbers.astype(np.float32)
        if not isinstance(numbers, Stored) and numbers.dtype != np.float16:
            return self.store(name, np.ascontiguousarray(numbers))
        if isinstance(numbers, Stored):
            code = self.store(f"{name}.codes", numbers.codes, **numbers.quantization())
        else:
            code = self.store(f"{name}.half", np.ascontiguousarray(numbers))
        shape = self.model.tensors[code].shape
        output = self.model.add(self.tensor(name, shape, "float32"))
        return self.operate("DEQUANTIZE", (code,), output, "DequantizeOptions")

    def _reordered(self, name: str, place: int, order: Order) -> int:
        read = self.model.tensors[place]
        codes = Codes(read.scales[0], read.zero_point) if read.scales else None
        shape = self.shape(name, order)
        output = self.model.add(self.tensor(f"{name}.channels_{order}", shape, read.dtype, codes))
        _, channels, height, width = self.shape(name)
        if channels == 1 or height * width == 1:  # nothing moves
            return self.reshape(place, output)
        axes = TO_LAST if order == LAST else TO_FIRST
        return self.transpose(place, output, axes)

    def read_codes(self, view: View, order: Order) -> int:
        """Return the place of codes that mean what a view says."""
        codes = self.codes[view.tensor]
        place = self.read(view.tensor, order)
        if codes == view.codes:
            return place
        key = (view.tensor, view.codes, order)
        if key not in self._relabelled:
            shape = self.model.tensors[place].shape
            output = self.model.add(self.tensor(f"{view.tensor}.line", shape, INT8, view.codes))
            if order == LAST and not self.lean:
                self._relabelled[key] = self.straight_line(place, output, codes, view.codes)
            else:
                self._relabelled[key] = self.reshape(place, output)
        return self._relabelled[key]

    def straight_line(
        self, place: int, output: int, codes: Codes, other: Codes, activation: str = "NONE"
    ) -> int:
        """Say that codes mean something else, by a convolution of one tap that leaves them as they are: in
        sums of these codes one step is one of the new ones. XNNPACK takes that, but no reshape that does it.

        Args:
            codes, other: what they mean, and what they are to mean.
            activation: a clip of what they are to mean.
        """
        name, channels = self.model.tensors[output].name, self.model.tensors[place].shape[-1]
        step = np.float32(other.scale)
        scales = (float(np.float32(step / np.float32(codes.scale))),) * channels
        one = np.ones((1, 1, 1, channels), np.int8)
        filters = self.store(f"{name}.one", one, scales=scales, axis=3)
        moved = np.full(channels, codes.zero - other.zero, np.int32)
        bias = self.store(f"{name}.moved", moved, scales=(float(step),) * channels)
        return self.operate(
            "DEPTHWISE_CONV_2D",
            (place, filters, bias),
            output,
            "DepthwiseConv2DOptions",
            padding="VALID",
            depthMultiplier=1,
            strideH=1,
            strideW=1,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=activation,
        )

    # -- writing ---------------------------------------------------------------------------------------

    def tensor(self, name: str, shape: Sequence[int], dtype: str, codes: Codes | None = None) -> FlatTensor:
        """Return a computed tensor, with a name that no other has."""
        unique, count = name, 1
        while unique in self._names:
            unique, count = f"{name}.{count}", count + 1
        self._names.add(unique)
        if codes is None:
            return FlatTensor(unique, tuple(shape), dtype)
        return FlatTensor(unique, tuple(shape), dtype, (float(np.float32(codes.scale)),), codes.zero)

    def _dtype(self, name: str) -> str:
        dtype = self.source.dtypes[name]
        return _WIDTHS.get(dtype, dtype)

    def give(self, name: str, order: Order = FIRST, codes: Codes | None = None) -> int:
        """Add the tensor that has a name in the file that is converted."""
        dtype = self._dtype(name) if codes is None else INT8
        place = self.model.add(self.tensor(name, self.shape(name, order), dtype, codes))
        self.places[name, order] = place
        if codes is not None:
            self.codes[name] = codes
        return place

    def between(self, name: str, like: int, shape: Sequence[int] | None = None) -> int:
        """Add a tensor that the file that is converted does not have, with the type of another."""
        read = self.model.tensors[like]
        codes = Codes(read.scales[0], read.zero_point) if read.scales else None
        return self.model.add(self.tensor(name, read.shape if shape is None else shape, read.dtype, codes))

    def store(self, name: str, array: Array, **quantization: Any) -> int:
        """Add stored numbers."""
        unique = self.tensor(name, (), "").name
        return self.model.constant(unique, np.ascontiguousarray(array), **quantization)

    def sizes(self, name: str, values: Sequence[int] | Array) -> int:
        """Add stored whole numbers, such as a shape."""
        return self.store(name, np.array(values, np.int32))

    def operate(self, code: str, inputs: Sequence[int], output: int, kind: str = "", **options: Any) -> int:
        """Add an operator of the version that its types need; return what it gives."""
        dtype = next((self.model.tensors[place].dtype for place in inputs if place >= 0), "float32")
        version = _VERSIONS.get((code, dtype), 1)
        self.model.operator(code, inputs, (output,), kind, version=version, **options)
        return output

    def reshape(self, place: int, output: int) -> int:
        """Give a tensor another shape, or say that its codes mean something else."""
        shape = self.model.tensors[output].shape
        target = self.sizes(f"{self.model.tensors[output].name}.shape", shape)
        return self.operate("RESHAPE", (place, target), output, "ReshapeOptions", newShape=list(shape))

    def transpose(self, place: int, output: int, axes: Sequence[int]) -> int:
        """Put the dimensions of a tensor into another order."""
        order = self.sizes(f"{self.model.tensors[output].name}.axes", axes)
        return self.operate("TRANSPOSE", (place, order), output, "TransposeOptions")

    def same(self, name: str, of: str) -> None:
        """Let a tensor be another by a second name."""
        kept: tuple[dict[str, Any], ...] = (self.views, self.stored, self.halves, self.codes)
        for known in kept:
            if of in known:
                known[name] = known[of]
        for order in (FIRST, LAST):
            if (of, order) in self.places:
                self.places[name, order] = self.places[of, order]

    def outputs(self) -> dict[str, tuple[int, Order]]:
        """Return where what the network gives is, in which order; each by its own name."""
        given = {}
        for name in self.source.outputs:
            order = self.order_of(name)
            place = self.read(name, order)
            tensor = self.model.tensors[place]
            if tensor.name != name or tensor.data is not None or name in self.source.inputs:
                output = self.model.add(FlatTensor(name, tensor.shape, tensor.dtype))
                place = self.reshape(place, output)
            given[name] = (place, order)
        return given

    def elements(self, name: str) -> int:
        """Return how many numbers a tensor has."""
        return prod(self.source.shapes[name])


@dataclass(frozen=True)
class Steps:
    """Writes operators one behind another that stand for one node.

    Attributes:
        conversion, node: of which.
        like: place of a tensor that what they give is like, but for its shape.
    """

    conversion: Conversion
    node: Node
    like: int

    def __call__(
        self,
        code: str,
        places: Sequence[int],
        kind: str = "",
        *,
        shape: Sequence[int] | None = None,
        output: int | None = None,
        **options: Any,
    ) -> int:
        """Add an operator; return the place of what it gives.

        Args:
            shape: of that, where it is another.
            output: place of that, where there is one already.
        """
        if output is None:
            output = self.conversion.between(f"{self.node.name}.step", self.like, shape)
        return self.conversion.operate(code, places, output, kind, **options)

    def number(self, value: float) -> int:
        """Store a number."""
        return self.conversion.store(f"{self.node.name}.number", np.array(value, np.float32))

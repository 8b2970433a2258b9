"""From a network in real numbers to the same network in integers only: which format each tensor has, and
where one format becomes another.

What is multiplied, and what curves are taken of, has 8 bits; residual streams and what norms read have 16
(HAWQ-V3, arXiv:2011.10680; I-ViT, arXiv:2207.01405). The layers keep their names.
"""

from collections.abc import Mapping
from dataclasses import replace

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Value
from hw_profiles.graph.formats import FP32, WHOLE
from hw_profiles.graph.layer import MATRIX, Layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Workload

NARROW, WIDE = "int8", "int16"
# what an operation computes in; those that only move numbers compute in what is wanted of them
READS: Mapping[str, str] = {
    **dict.fromkeys(("Conv", "Gemm", "MatMul", "Softmax", "Gelu", "Tanh", "Relu", "Clip"), NARROW),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool"), NARROW),
    **dict.fromkeys(("Add", "LayerNormalization"), WIDE),
    "Less": "bool",  # it reads ids, which stay as they are
}
MOVES = ("Reshape", "Transpose", "Flatten", "Slice", "Expand", "Gather")
ON_MAPS = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool")
ANYWHERE = ("Add", "Relu", "Clip", "Gelu")  # each number by itself, in whatever order they lie
IN_MAPS, OUT_MAPS = 1, 2  # of the attribute `maps`
MAP_RANK = 4


def integer_only(work: Workload, weight_format: str = NARROW) -> Workload:
    """Return a network of real numbers as one in integers only, from what quantizes its input to the product
    that gives its answer.

    Args:
        work: in fp32 throughout.
        weight_format: of all matrices and filters.

    Raises:
        TrilobitError: a layer has no integer-only form (which, and why).
    """
    work = lower(work)
    for name, layer in zip(work.names, work.layers, strict=True):
        if why := refusal(layer):
            raise TrilobitError(f"{name}: {why}")
    _require_product(work)
    net = _Integers(work, weight_format)
    for position in range(len(work.layers)):
        net.layer(position)
    return Workload(tuple(net.names), tuple(net.layers), tuple(net.inputs), feeds=work.feeds)


def refusal(layer: Layer) -> str | None:
    """Return why a layer has no integer-only form; None where it has one."""
    if (
        layer.is_conversion
        or layer.weight_format != FP32
        or any(x.format not in (FP32, *WHOLE) for x in layer.inputs)
    ):
        return "only a network in fp32 becomes one of integers only"
    if layer.op not in READS and layer.op not in MOVES:
        return f"there is no integer-only {layer.op}; known are {', '.join((*READS, *MOVES))}"
    if layer.activation not in ("none", "relu", "relu6"):
        return f"there is no integer-only {layer.op} with {layer.activation}"
    rank = len(layer.inputs[0].shape)
    if layer.op in ("Softmax", "LayerNormalization") and layer.values.integer("axis") % rank != rank - 1:
        return f"an integer-only {layer.op} is over the last dimension"
    return None


def _require_product(work: Workload) -> None:
    """Refuse a network that gives something else than one product, which is where real numbers begin."""
    (last,) = work.outputs if len(work.outputs) == 1 else (-1,)
    if last != len(work.types) - 1 or work.layers[-1].op not in ("Gemm", "MatMul"):
        raise TrilobitError(
            "an integer-only network ends with the one product that gives its answer, a linear layer"
        )


class _Integers:
    """Layers under construction, and which of their tensors each tensor of the network has become."""

    def __init__(self, work: Workload, weight_format: str) -> None:
        self.names: list[str] = []
        self.layers: list[Layer] = []
        self.inputs: list[tuple[int, ...]] = []
        self._work, self._weight_format = work, weight_format
        self._wanted, self._maps = _wanted_formats(work), _maps(work)
        self._now: dict[int, int] = {-1 - i: -1 - i for i in range(len(work.feeds))}
        self._converted: dict[tuple[int, str], int] = {}

    def layer(self, position: int) -> None:
        """Append a layer as it is in integers, and what converts its operands."""
        layer, sources = self._work.layers[position], self._work.inputs[position]
        given, last = self._work.producers.index(position), position == len(self._work.layers) - 1
        gives = FP32 if last else self._wanted[given]
        reads = READS.get(layer.op, gives)
        types = tuple(x if x.format in WHOLE else TensorType(x.shape, reads) for x in layer.inputs)
        now = tuple(
            self._now[source] if x.format in WHOLE else self._as_format(source, reads)
            for source, x in zip(sources, layer.inputs, strict=True)
        )
        own: dict[str, Value | None] = dict(layer.attributes)
        if "to" in layer.operation.attributes:
            table = layer.op == "Gather" and layer.weighted
            own["to"] = gives if gives != reads or table or layer.op == "Gemm" else None
        if layer.op in MOVES and layer.op != "Gather":
            maps = IN_MAPS * (sources[0] in self._maps) + OUT_MAPS * (given in self._maps)
            own["maps"] = maps if "maps" in layer.operation.attributes else None
        if layer.op == "Add" and "weight" in layer.values and sources[0] in self._maps:
            own["maps"] = IN_MAPS + OUT_MAPS
        stated = tuple((key, value) for key, value in own.items() if value is not None)
        weights = self._weight_format if layer.weighted and layer.op != "Gather" else FP32
        made = replace(layer, inputs=types, attributes=stated, weight_format=weights)
        self._now[given] = self._append(self._work.names[position], made, now)

    def _as_format(self, source: int, fmt: str) -> int:
        """Return a tensor in a format, converted once for all that read it so."""
        now = self._now[source]
        has = self._work.type_of(source) if now < 0 else self.layers[now].outputs[0]
        if has.format == fmt:
            return now
        if (now, fmt) not in self._converted:
            origin = self.names[now] if now >= 0 else "input"
            layer = Layer.of("QuantizeLinear", has, to=fmt)
            self._converted[now, fmt] = self._append(f"{origin}.quantize", layer, (now,))
        return self._converted[now, fmt]

    def _append(self, name: str, layer: Layer, sources: tuple[int, ...]) -> int:
        self.names.append(name)
        self.layers.append(layer)
        self.inputs.append(sources)
        return len(self.layers) - 1  # each gives one tensor


def _wanted_formats(work: Workload) -> dict[int, str]:
    """Return for each tensor the widest format that a reader of it computes in."""
    wide: set[int] = set()
    for position in reversed(range(len(work.layers))):
        layer, sources = work.layers[position], work.inputs[position]
        given = work.producers.index(position)
        reads = READS.get(layer.op, WIDE if given in wide else NARROW)
        wide |= {source for source in sources if reads == WIDE}
    return {tensor: WIDE if tensor in wide else NARROW for tensor in range(-len(work.feeds), len(work.types))}


def _maps(work: Workload) -> set[int]:
    """Return the tensors whose channels lie last in memory: what convolutions and pooling read and give, and
    what is computed of these number by number.

    Raises:
        TrilobitError: something else reads such a tensor.
    """
    candidates = {-1 - i for i, feed in enumerate(work.feeds) if len(feed.type.shape) == MAP_RANK}
    for position in reversed(range(len(work.layers))):
        layer, sources, given = work.layers[position], work.inputs[position], work.producers.index(position)
        flattened = layer.op == "Gemm" and len(layer.inputs[0].shape) == MAP_RANK
        if layer.op in ON_MAPS or flattened or (layer.op in ANYWHERE and given in candidates):
            candidates |= set(sources)
    maps = {tensor for tensor in candidates if tensor < 0}
    for position, layer in enumerate(work.layers):
        sources, given = work.inputs[position], work.producers.index(position)
        are = [source in maps for source in sources]
        if (
            layer.op in ON_MAPS
            or (layer.op in ANYWHERE and all(are))
            or (layer.op in MOVES and given in candidates)
        ):
            maps.add(given)
        elif any(are) and layer.op not in (*MOVES, "Gemm"):
            raise TrilobitError(
                f"{work.names[position]}: a {layer.op} of maps has no integer-only form; reshape them first"
            )
    return maps


def has_wide_tensors(work: Workload) -> bool:
    """Return whether tensors of 16 bits lie between its layers."""
    return any(x.format == WIDE for x in work.types)


def is_product_of_two(layer: Layer) -> bool:
    """Return whether a layer multiplies two computed matrices."""
    return layer.op == "MatMul" and len(layer.inputs) == MATRIX

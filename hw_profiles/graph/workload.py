"""`Workload`: a network as a graph of layers.

A tensor has one format. Where two neighbours disagree, the change is a layer of its own (`QuantizeLinear`,
`DequantizeLinear`), because on real devices it costs real time: 1 to 36 us where a whole block takes 10 to
60 us.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.tensor_type import TensorType, image_shape, symbols_of


class Feed(NamedTuple):
    """A tensor that a network is given: its name and what is known of it."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Workload:
    """Layers in topological order with the tensors they read.

    Tensors are counted in the order in which they arise: where every layer gives one, as those of images do,
    the number of a tensor is that of its layer. Negative numbers are what the network is given: `INPUT`,
    which is -1, the first, -2 the second.

    Attributes:
        names: one unique name per layer, for example `s1.b0.expand`.
        layers: one per name.
        inputs: for each layer the tensors it reads.
        in_format: number format of the network's first input: fp32, but for an integer layer taken by itself.
        feeds: what the network is given; by default one image, as the first layer reads it.
        outputs: tensors that the network gives; by default the last.

    Raises:
        ValueError: two neighbours disagree about the shape or the format of the tensor between them.
    """

    names: tuple[str, ...]
    layers: tuple[Layer, ...]
    inputs: tuple[tuple[int, ...], ...]
    in_format: str = FP32
    feeds: tuple[Feed, ...] = ()
    outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.layers) == len(self.inputs) == len(set(self.names)):
            raise ValueError("names (unique), layers and inputs must be equally many")
        if self.feeds:
            object.__setattr__(self, "in_format", self.feeds[0].type.format)
        else:
            image = TensorType(self.layers[0].inputs[0].shape, self.in_format)
            object.__setattr__(self, "feeds", (Feed("image", image),))
        types: list[TensorType] = []
        for name, layer, sources in zip(self.names, self.layers, self.inputs, strict=True):
            self._check(name, layer, sources, types)
            types += layer.outputs
        if not self.outputs:
            object.__setattr__(self, "outputs", (len(types) - 1,))
        if not all(-len(self.feeds) <= tensor < len(types) for tensor in self.outputs):
            raise ValueError(f"the network gives tensors {self.outputs}, but has only {len(types)}")

    def _check(self, name: str, layer: Layer, sources: tuple[int, ...], types: list[TensorType]) -> None:
        if len(sources) != len(layer.inputs):
            raise ValueError(f"{name} reads {len(layer.inputs)} tensors, but {len(sources)} are given")
        for source, input_type in zip(sources, layer.inputs, strict=True):
            if not -len(self.feeds) <= source < len(types):
                raise ValueError(f"{name} reads tensor {source}, which does not come before it")
            source_type = types[source] if source >= 0 else self.feeds[-1 - source].type
            if source_type != input_type:
                raise ValueError(f"{name} reads {input_type}, but its input is {source_type}")

    @cached_property
    def _hash(self) -> int:
        return hash((self.names, self.layers, self.inputs, self.feeds, self.outputs))

    def __hash__(self) -> int:
        return self._hash  # computed once: tables look up the same parts millions of times

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the image that the network reads."""
        return image_shape(self.feeds[0].type.shape)

    @property
    def in_size(self) -> int:
        """Height and width of the image, or tokens of the text, that the network reads."""
        return int(self.feeds[0].type.shape[-1])

    @cached_property
    def types(self) -> tuple[TensorType, ...]:
        """Type of each tensor that a layer gives."""
        return tuple(output for layer in self.layers for output in layer.outputs)

    @cached_property
    def producers(self) -> tuple[int, ...]:
        """For each tensor the layer that gives it."""
        return tuple(position for position, layer in enumerate(self.layers) for _ in layer.outputs)

    def type_of(self, tensor: int) -> TensorType:
        """Return the type of a tensor, of what the network is given too."""
        return self.types[tensor] if tensor >= 0 else self.feeds[-1 - tensor].type

    @property
    def symbols(self) -> frozenset[str]:
        """Dimensions that have no size yet."""
        types = [feed.type for feed in self.feeds] + [x for layer in self.layers for x in layer.outputs]
        return symbols_of(dim for x in types for dim in x.shape)


def single(layer: Layer) -> Workload:
    """Return one layer as a workload by itself; both inputs of a sum are the network's."""
    distinct = list(dict.fromkeys(layer.inputs))
    names = ("image", *(f"input{i}" for i in range(2, len(distinct) + 1)))
    feeds = tuple(map(Feed, names, distinct))
    sources = tuple(-1 - distinct.index(x) for x in layer.inputs)
    return Workload((layer.kind,), (layer,), (sources,), layer.in_format, feeds)

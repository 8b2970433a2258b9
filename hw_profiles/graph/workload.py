"""`Workload`: a network as a graph of layers.

A tensor has one format. Where two neighbours disagree, the change is a layer of its own (`quantize`,
`dequantize`), because on real devices it costs real time: 1 to 36 us where a whole block takes 10 to 60 us.
"""

from dataclasses import dataclass
from functools import cached_property

from hw_profiles.graph.layer import FP32, INPUT, LayerSpec


@dataclass(frozen=True)
class Workload:
    """Layers in topological order with the tensors they read. The last layer's output is the network's.

    Attributes:
        names: one unique name per layer, for example `s1.b0.expand`.
        layers: one spec per layer.
        inputs: for each layer the indices of the layers it reads; `INPUT` is the network's input.
        in_format: number format of the network's input: fp32, but for an integer layer taken by itself.

    Raises:
        ValueError: two neighbours disagree about the shape or the format of the tensor between them.
    """

    names: tuple[str, ...]
    layers: tuple[LayerSpec, ...]
    inputs: tuple[tuple[int, ...], ...]
    in_format: str = FP32

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.layers) == len(self.inputs) == len(set(self.names)):
            raise ValueError("names (unique), layers and inputs must be equally many")
        for position, (name, layer, sources) in enumerate(
            zip(self.names, self.layers, self.inputs, strict=True)
        ):
            if len(sources) != len(layer.in_shapes):
                raise ValueError(f"{name} reads {len(layer.in_shapes)} tensors, but {len(sources)} are given")
            for source, shape in zip(sources, layer.in_shapes, strict=True):
                if not INPUT <= source < position:
                    raise ValueError(f"{name} reads layer {source}, which does not come before it")
                producer = self.layers[source] if source != INPUT else None
                image = (self.in_shape, self.in_format)
                found = (producer.out_shape, producer.out_format) if producer else image
                if found != (shape, layer.in_format):
                    raise ValueError(f"{name} reads {(shape, layer.in_format)}, but its input is {found}")

    @cached_property
    def _hash(self) -> int:
        return hash((self.names, self.layers, self.inputs, self.in_format))

    def __hash__(self) -> int:
        return self._hash  # computed once: tables look up the same parts millions of times

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the network's input."""
        return self.layers[0].in_shape


def single(layer: LayerSpec) -> Workload:
    """One layer as a workload by itself; both inputs of a sum are the network's."""
    return Workload((layer.op,), (layer,), ((INPUT,) * len(layer.in_shapes),), layer.in_format)

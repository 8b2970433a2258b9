"""Several networks as one: what they compute alike is there once, whatever it is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from supernet.graph.quantized_graph import Parameters, QuantizedGraph, cache_names

_Tensor = tuple[int, int]  # number of the layer that gives it, and which of its outputs it is
_Scales = tuple[QuantParams | None, ...]  # of what a layer gives, and of the keys and values that it keeps
_Alike = tuple[str, Layer, tuple[_Tensor, ...], str, _Scales]


def joined(networks: Mapping[str, QuantizedGraph]) -> QuantizedGraph:
    """Return one network that gives all that `networks` give, in their order. Layers that compute the same of
    the same are there once, with the names that they have in the last network; those that it does not have
    are called after their network, by its name.

    Raises:
        ValueError: they do not read the same, or there is none.
    """
    *_, last = networks.values()
    if any(network.workload.feeds != last.workload.feeds for network in networks.values()):
        raise ValueError("networks that read something else cannot be one")
    known: dict[_Alike, int] = {}
    alike = {name: _alike(network, known) for name, network in networks.items()}
    *_, own = alike.values()
    together = _Joined()
    for name, network in networks.items():
        together.append(network, alike[name], f"{name}.", {*own})
    return together.network(last.workload)


def _alike(network: QuantizedGraph, known: dict[_Alike, int]) -> list[int]:
    """Return for each layer a number that equal ones, which compute the same of the same, have in common."""
    work, numbers = network.workload, list[int]()
    for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
        read = tuple(_read(work, numbers, tensor) for tensor in sources)
        scales = tuple(map(network.tensors.get, _scaled(name)))
        key = (name, layer, read, _digest(network.parameters.get(name)), scales)
        numbers.append(known.setdefault(key, len(known)))
    return numbers


def _read(work: Workload, numbers: Sequence[int], tensor: int) -> _Tensor:
    if tensor < 0:
        return tensor, 0
    producer = work.producers[tensor]
    return numbers[producer], tensor - work.producers.index(producer)


def _scaled(layer: str) -> tuple[str, ...]:
    """Return the names of all that a layer can have a scale of."""
    return layer, *cache_names(layer)


def _digest(parameters: Parameters | None) -> str:
    """Return what equal parameters have in common."""
    if parameters is None:
        return ""
    weight, digest = parameters.weight, hashlib.sha256()
    for part in (*(getattr(weight, field.name) for field in fields(weight)), parameters.bias):
        array = (
            np.asarray(part) if isinstance(part, np.ndarray) else np.frombuffer(repr(part).encode(), np.uint8)
        )
        digest.update(repr((array.dtype, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Joined:
    """Layers of several networks, each once."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.layers: list[Layer] = []
        self.inputs: list[tuple[int, ...]] = []
        self.outputs: list[int] = []
        self.parameters: dict[str, Parameters] = {}
        self.tensors: dict[str, QuantParams] = {}
        self._first: dict[int, int] = {}  # first tensor of each layer, by the number that equal ones have
        self._count = 0

    def append(self, network: QuantizedGraph, alike: Sequence[int], prefix: str, own: set[int]) -> None:
        """Append the layers that are not there yet, and give what the network gives.

        Args:
            prefix: of names of layers that are not among `own`.
        """
        work = network.workload

        def tensor(source: int) -> int:
            number, output = _read(work, alike, source)
            return source if source < 0 else self._first[number] + output

        for position, number in enumerate(alike):
            if number not in self._first:
                name, layer = work.names[position], work.layers[position]
                unique = name if number in own else f"{prefix}{name}"
                self._first[number] = self._count
                self._count += len(layer.outputs)
                self.names.append(unique)
                self.layers.append(layer)
                self.inputs.append(tuple(map(tensor, work.inputs[position])))
                self.parameters |= {unique: network.parameters[name]} if name in network.parameters else {}
                for key, own_key in zip(_scaled(name), _scaled(unique), strict=True):
                    self.tensors |= {own_key: network.tensors[key]} if key in network.tensors else {}
        self.outputs += map(tensor, work.outputs)

    def network(self, like: Workload) -> QuantizedGraph:
        """Return all of it as one network that reads what `like` does."""
        layers = tuple(self.names), tuple(self.layers), tuple(self.inputs)
        work = Workload(*layers, like.in_format, like.feeds, tuple(self.outputs))
        return QuantizedGraph(work, self.parameters, self.tensors)

"""What a library has no kernel for, and what comes nearest to it that has one."""

from collections.abc import Mapping, Sequence

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import tensor_bits, weight_bits
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.tvm_cpu.templates import ACTIVATIONS, WEIGHTS, is_supported


def why_not(work: Workload) -> str | None:
    """Return the first layer of a lowered network that has no kernel, why, and the nearest that has one; None
    where all have.
    """
    named = zip(work.names, work.layers, strict=True)
    # what has a choice of formats first, conversions that follow from it last
    for name, layer in sorted(named, key=lambda pair: (pair[1].is_conversion, not pair[1].weighted)):
        if not is_supported(layer):
            return f"{name}: TVM's kernels have no {_named(layer)}; {_offer(layer)}"
    return None


def _named(layer: Layer) -> str:
    formats = f"{layer.activation_format} activations"
    if layer.weighted:
        formats = f"{layer.weight_format} weights, {formats}"
    return f"{layer.kind} with {layer.nonlinearity} ({formats})"


def _offer(layer: Layer) -> str:
    nearest = nearest_formats(layer)
    if nearest is not None:
        return f"the nearest they run is {_named(nearest)}"
    if layer.nonlinearity not in ACTIVATIONS:
        return f"of activation functions they run {' and '.join(ACTIVATIONS)}"
    return "they run it in no format"


def nearest_formats(layer: Layer) -> Layer | None:
    """Return the layer in formats that have a kernel: of as many bits as its own, or the fewest more; None
    where no format helps.
    """

    def distance(other: Layer) -> list[tuple[bool, int]]:
        own, others = (
            [tensor_bits(either.activation_format), weight_bits(either.weight_format)]
            for either in (layer, other)
        )
        return [
            (other_bits < own_bits, abs(other_bits - own_bits))
            for other_bits, own_bits in zip(others, own, strict=True)
        ]

    variants = (
        layer.with_formats(weight, activation)
        for activation, weights in WEIGHTS.items()
        for weight in weights
    )
    return min(filter(is_supported, variants), key=distance, default=None)


def require_kernels(picked: Sequence[str], front: Mapping[str, tuple[Sequence[int], Workload]]) -> None:
    """Refuse the first chosen network that a library cannot hold, and offer the one that is most like it.

    Args:
        picked: ids.
        front: genes and lowered layers by id: of the chosen, and of all that could be instead.

    Raises:
        TrilobitError: one has a layer without a kernel.
    """
    refused = {name: why for name, (_, work) in front.items() if (why := why_not(work)) is not None}
    for name in picked:
        if name in refused:
            genes = {n: np.array(row) for n, (row, _) in front.items() if n == name or n not in refused}
            own = genes.pop(name)
            offer = (
                _nearest(own, genes) if genes else "no network of the front has kernels for all its layers"
            )
            raise TrilobitError(f"{name}: {refused[name]}; {offer}; or leave --library out")


def _nearest(own: np.ndarray, others: Mapping[str, np.ndarray]) -> str:
    differ = {name: int((genes != own).sum()) for name, genes in others.items()}
    nearest = min(differ, key=lambda name: differ[name])
    return f"of the front, --pick {nearest} comes nearest ({differ[nearest]} of {len(own)} choices differ)"

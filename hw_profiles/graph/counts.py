"""Multiply-adds and parameters of layers."""

from functools import lru_cache

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import BATCH, known

_REMEMBERED = 2**15  # layers whose counts are kept: tables ask for each of them many times
ONE = {BATCH: 1}  # counts are of one inference


@lru_cache(_REMEMBERED)
def macs(layer: Layer) -> int:
    """Return the multiply-adds of one layer for one image; one fused multiply-add is 1 MAC.

    Only convolutions, linear layers, matrix products and whole blocks have any.

    >>> from hw_profiles.graph.layer import map_layer
    >>> macs(map_layer("conv", (8, 16, 16), 24))
    49152

    Raises:
        TrilobitError: they depend on a dimension besides the batch that has no size yet.
    """
    return known(layer.operation.macs(layer.inputs, layer.outputs, layer.values), ONE)


@lru_cache(_REMEMBERED)
def params(layer: Layer) -> int:
    """Return the weights and biases of one layer, batch norm folded."""
    return layer.operation.parameters(layer.inputs, layer.values)

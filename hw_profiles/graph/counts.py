"""Multiply-adds and parameters of layers."""

from collections.abc import Callable, Mapping

from hw_profiles.graph.blocks import block_convolutions
from hw_profiles.graph.layer import LayerSpec


def _conv_macs(layer: LayerSpec) -> int:
    channels, height, width = layer.out_shape
    return channels * height * width * layer.kernel**2 * layer.in_shape[0] // layer.groups


_MACS: Mapping[str, Callable[[LayerSpec], int]] = {
    "stem": _conv_macs,
    "conv": _conv_macs,
    "linear": lambda layer: layer.in_shape[0] * layer.out_channels,
    "mbconv": lambda layer: sum(map(_conv_macs, block_convolutions(layer).values())),
}


def _conv_params(layer: LayerSpec) -> int:
    return layer.out_channels * (layer.kernel**2 * layer.in_shape[0] // layer.groups + 1)


_PARAMS: Mapping[str, Callable[[LayerSpec], int]] = {
    "stem": _conv_params,
    "conv": _conv_params,
    "linear": lambda layer: layer.out_channels * (layer.in_shape[0] + 1),
    "mbconv": lambda layer: sum(map(_conv_params, block_convolutions(layer).values())),
}


def macs(layer: LayerSpec) -> int:
    """Multiply-adds of one layer; one fused multiply-add is 1 MAC. Only convolutions, linear layers and whole
    blocks have any.

    >>> macs(LayerSpec("conv", (8, 16, 16), 24))
    49152
    """
    return _MACS[layer.op](layer) if layer.op in _MACS else 0


def params(layer: LayerSpec) -> int:
    """Weights and biases of one layer, batch norm folded."""
    return _PARAMS[layer.op](layer) if layer.op in _PARAMS else 0

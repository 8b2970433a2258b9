"""Bytes of an ONNX file by layer, remembered: a file holds weights and nodes, but no maps."""

from functools import lru_cache

from hw_profiles.graph.layer import Layer, at_size
from nas.emit.to_onnx import file_size

_known = lru_cache(maxsize=2**18)(file_size)


def layer_bytes(layer: Layer) -> int:
    """Return the bytes that a layer adds to a file, whatever the size of its maps."""
    return _known(at_size(layer, 1, 1))

"""What is inside of a whole-block unit of published tables: an inverted residual."""

from collections.abc import Mapping
from functools import lru_cache

from hw_profiles.graph.inverted_residual import block_parts
from hw_profiles.graph.inverted_residual import divisible as divisible
from hw_profiles.graph.layer import Layer, map_layer


@lru_cache(2**14)
def block_convolutions(block: Layer) -> Mapping[str, Layer]:
    """Return the convolutions of a whole block by name, in order: `expand`, `depthwise`, `reduce` and
    `excite` of squeeze-and-excitation, `project`; each in the block's formats.
    """
    fields = block.fields
    _, height, width = block.out_shape
    maps = {"input": fields.in_shape[1:], "output": (height, width), "pooled": (1, 1)}
    sizes = (fields.in_shape[0], fields.out_channels, fields.kernel, fields.stride, fields.expanded)
    formats = (fields.weight_format, fields.activation_format)
    return {
        name: map_layer("conv", (part.reads, *maps[part.on]), *part[1:5], part.activation, *formats)
        for name, part in block_parts(*sizes, fields.squeeze, fields.activation).items()
    }

"""What APQ's published sums say of the units that are no rows of its table.

The authors add two constants to the rows of a network: `head` and `tail`. The tail is the convolution to
1,280 channels in 8 bits: our model of the same array (`systolic`) gives the very figure, 0.0816 ms. The head
is the stem: the model is 5 % below its 0.296 ms, and above 1.3 ms with the first block. First block,
classifier, sums, pooling and changes of format are in neither: in the published sums they count nothing.
"""

from collections.abc import Mapping

from hw_profiles.graph.formats import needs_scale
from hw_profiles.graph.layer import Layer, map_layer

# Of which unit each constant is the figure. Like the rows, without the activation that follows.
CONSTANTS: Mapping[str, Layer] = {
    "head": map_layer("stem", (3, 224, 224), 32, 3, 2, 1, "none", "int8", "int8"),
    "tail": map_layer("conv", (320, 7, 7), 1280, 1, 1, 1, "none", "int8", "int8"),
}
UNCOUNTED = (  # the first block
    map_layer("conv", (32, 112, 112), 32, 3, 1, 32, "none", "int8", "int8"),
    map_layer("conv", (32, 112, 112), 16, 1, 1, 1, "none", "int8", "int8"),
)
UNCOUNTED_OPS = ("add", "add_converted", "pool", "linear", "quantize", "dequantize")


def is_uncounted(layer: Layer) -> bool:
    """Return whether the published sums leave out a unit, given without its activation."""
    return layer in UNCOUNTED or (layer.kind in UNCOUNTED_OPS and needs_scale(layer.activation_format))

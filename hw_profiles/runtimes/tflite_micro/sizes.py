"""Arena and flash of a network, layer by layer, as a search counts them; imports no engine.

The arena of TensorFlow Lite Micro holds tensors, planned so that those that are never alive together share
memory, and what its kernels and its interpreter keep. On a 64-bit host, where both were measured, what is
kept is larger than on a controller of 32 bits: pointers are. Flash is the file; the code of the kernels that
it needs is the firmware's, and is not in it.
"""

from functools import lru_cache
from math import prod

from hw_profiles.graph.layer import Layer, computes_in_integers
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.windows import windows_of
from hw_profiles.graph.workload import single
from hw_profiles.runtimes.tflite_micro.geometry import Geometry

# what the interpreter keeps on a 64-bit host: for every network, for an operator, and for each channel whose
# sums of codes it rescales
KEPT, KEPT_OPERATOR, KEPT_CHANNEL = 2_600.0, 247.0, 8.6
# bytes of a file: for every file, and for an operator besides its stored numbers
FILE, OPERATOR = 3_700.0, 230.0
SCALES = 24  # of the weight and of the bias of a channel: each 4 of a scale and 8 of a zero point
BIAS = 4
_REMEMBERED = 2**18


@lru_cache(_REMEMBERED)
def kept_bytes(layer: Layer) -> float:
    """Return what the interpreter keeps for a layer, or for those within a block."""
    return sum(map(_kept, lower(single(layer)).layers))


def _kept(layer: Layer) -> float:
    channels = layer.stored_shape[0] if layer.weighted and computes_in_integers(layer) else 0
    return KEPT_OPERATOR + KEPT_CHANNEL * channels


def kept_always() -> float:
    """Return what it keeps for every network."""
    return KEPT


@lru_cache(_REMEMBERED)
def flash_bytes(layer: Layer) -> float:
    """Return what a layer, or those within a block, adds to a `.tflite` file that is lean."""
    return sum(map(_flash, lower(single(layer)).layers))


def _flash(layer: Layer) -> float:
    if not layer.weighted:
        return OPERATOR
    channels, *others = layer.stored_shape
    if layer.depthwise:
        others = [1, *_taps(layer)]
    numbers = channels * prod(others)
    if computes_in_integers(layer) and layer.out_format != "fp32":
        return OPERATOR + numbers + channels * (BIAS + SCALES)
    return OPERATOR + 4 * numbers + channels * BIAS


def _taps(layer: Layer) -> tuple[int, int]:
    """Return the taps of a depthwise kernel as a lean file has it."""
    w = windows_of(layer)
    where = Geometry(w.kernel, w.strides, w.dilations, w.pads, (w.height, w.width), (w.rows, w.columns))
    added = (where.grown() if w.padded else None) or (0, 0)
    return w.kernel[0] + added[0], w.kernel[1] + added[1]


def file_bytes() -> float:
    """Return what every file has besides its layers."""
    return FILE

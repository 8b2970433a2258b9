"""Attention that reads keys and values as a cache keeps them, as ONNX nodes; docs/decisions.md has what was
compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hw_profiles.graph.cache import PAST_NAME, PRESENT_NAME, in_real_numbers
from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.shape_rules import Attended, attended
from nas.emit.emission import Emission, Emit, Writer
from supernet.graph.quantized_graph import cache_names, keeps_codes

CODES_AT_ONCE = 8  # a head's width is a multiple of it where a kernel reads codes
_MICROSOFT = "com.microsoft"
_PAST, _PRESENT = (name.partition(".")[0] + "." for name in (PAST_NAME, PRESENT_NAME))


def cache_scales(writer: Writer, name: str, layer: Layer, tensors: Mapping[str, QuantParams]) -> list[str]:
    """Store the scales of keys and values that an attention keeps as codes; return their names.

    Args:
        name: of the layer.
        tensors: how tensors are quantized; what is not there has a scale of 1.
    """
    scales = {key: tensors[key].scale if key in tensors else 1.0 for key in cache_names(name)}
    if not keeps_codes(layer):
        return []
    return [writer.constant(f"{key}.s", np.array(scale, np.float32)) for key, scale in scales.items()]


def grown_names(e: Emission) -> list[str]:
    """Return what grown keys and values are called: after the past ones, where those are the network's."""
    outputs = len(e.layer.outputs) - 1
    past = [name for name in e.inputs[-2:] if name.startswith(_PAST)]
    if outputs and len(past) == outputs:
        return [name.replace(_PAST, _PRESENT, 1) for name in past]
    return [f"{e.name}.{i}" for i in range(1, outputs + 1)]


def attended_as_kept(e: Emission, mask: str, attention: Emit) -> list[str]:
    """Write an attention that reads keys and values as a cache keeps them.

    Of one query whose cache holds codes ONNX Runtime (1.31) has a kernel that reads them as they are; of many
    it takes ten times as long as numbers made of them, which is what all others read: docs/decisions.md.
    """
    read = attended(e.layer.inputs, e.layer.values)
    if e.constants and not mask and not e.portable and _has_kernel_of_codes(e.layer, read):
        return _of_codes(e)
    past = len(e.inputs) - 2 if read.cached else len(e.inputs)
    inputs, keeps = list(e.inputs), list[_Keep]()
    for i, part in enumerate(("key", "value")):
        keep = _Keep(e, part, e.constants[i] if e.constants else "")
        inputs[1 + i] = keep.restored(keep.stored(inputs[1 + i], "now"), "now")
        if read.cached:
            inputs[past + i] = keep.restored(inputs[past + i], "past")
        keeps.append(keep)
    real = replace(e, layer=in_real_numbers(e.layer), inputs=inputs, constants=[])
    mixed, *grown = attention(real)
    names = grown_names(e)
    return [mixed, *(k.stored(x, "grown", n) for k, x, n in zip(keeps, grown, names, strict=False))]


def _has_kernel_of_codes(layer: Layer, read: Attended) -> bool:
    """Return whether `GroupQueryAttention` takes an attention, and is the faster way."""
    by_width = len(layer.inputs[0].shape) == 3 and read.depth == read.value_depth
    in_vectors = isinstance(read.depth, int) and read.depth % CODES_AT_ONCE == 0
    return read.cached and read.queries == 1 and by_width and in_vectors


@dataclass(frozen=True)
class _Keep:
    """Writes what turns keys or values into what a cache holds, and back.

    Attributes:
        part: `key` or `value`.
        scale: name of the scale of codes; empty for half precision.
    """

    e: Emission
    part: str
    scale: str

    def stored(self, x: str, step: str, name: str = "") -> str:
        """Return real numbers as the cache holds them."""
        whole = f"{self.e.name}.{self.part}.{step}"
        own = name if name.startswith(_PRESENT) else f"{whole}.kept"
        if not self.scale:
            return self.e.writer.node("Cast", own, [x], to="FLOAT16")
        return self.e.writer.node("QuantizeLinear", own, [x, self.scale, self._zero()])

    def restored(self, x: str, step: str) -> str:
        """Return the real numbers of what the cache holds."""
        name = f"{self.part}.{step}"
        if not self.scale:
            return self.e.step("Cast", name, [x], to="FLOAT")
        if (
            self.e.portable
        ):  # ONNX Runtime (1.31) moves a DequantizeLinear through Reshape into an invalid graph
            return self.e.step(
                "Mul", name, [self.e.step("Cast", f"{name}.codes", [x], to="FLOAT"), self.scale]
            )
        return self.e.step("DequantizeLinear", name, [x, self.scale, self._zero()])

    def _zero(self) -> str:
        return _shared(self.e, "cache.zero", np.array(0, np.int8))


def _shared(e: Emission, name: str, array: NDArray[Any]) -> str:
    """Store numbers once for all layers; return their name."""
    if name not in {tensor.name for tensor in e.writer.initialisers}:
        e.writer.constant(name, array)
    return name


def _of_codes(e: Emission) -> list[str]:
    """Write an attention of one query that reads a cache of codes as they are."""
    a, names = e.layer.values, [e.name, *grown_names(e)]
    inputs = [*e.inputs[:3], *e.inputs[-2:], *_lengths(e), *[""] * 5, *e.constants]
    attributes: dict[str, Any] = {
        "num_heads": a.integer("q_num_heads"),
        "kv_num_heads": a.integer("kv_num_heads"),
        "k_quant_type": "PER_TENSOR",
        "v_quant_type": "PER_TENSOR",
        "kv_cache_bit_width": 8,
    }
    if "scale" in a:
        attributes["scale"] = a.number("scale")
    e.writer.domains.setdefault(_MICROSOFT, 1)
    node = onnx.helper.make_node("GroupQueryAttention", inputs, names, domain=_MICROSOFT, **attributes)
    e.writer.nodes.append(node)
    return names


def _lengths(e: Emission) -> tuple[str, str]:
    """Return how many positions are past in each example, and how many there are in all; all layers share
    them.
    """
    each, total = "cache.past", "cache.total"
    if any(node.output[0] == total for node in e.writer.nodes):
        return each, total
    node, past = e.writer.node, e.inputs[-2]
    length = node("Cast", "cache.length", [node("Shape", "cache.size", [past], start=2, end=3)], to="INT32")
    batch = node("Shape", "cache.batch", [past], start=0, end=1)
    node("Expand", each, [length, batch])
    one = _shared(e, "cache.one", np.array(1, np.int32))
    node("Add", total, [node("Squeeze", "cache.past.one", [length]), one])
    return each, total

"""Writes a policy into somebody's model: their file with QuantizeLinear and DequantizeLinear, or other
products, where the policy says so, and everything else as it was.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript.version_converter import convert_version

from hw_profiles.graph.formats import QuantParams
from nas.emit.file_types import IR_VERSIONS
from nas.emit.instructions import CALLER, Dequantize, Instructions, Quantize, instructions
from nas.emit.ir_writer import GraphWriter, replace_reads
from nas.emit.kept_kernels import keep_kernels
from nas.emit.products import write_product
from supernet.formats.loading import load_activation_format, load_format
from supernet.formats.onnx_weights import OPSETS
from supernet.imported.following import CLIPS, on_codes
from supernet.imported.model import ImportedModel, Unit
from supernet.imported.rescaling import GATED, Rescaling, rescalings
from supernet.ptq.quantization import Policy, Quantization

BY_CHANNEL = 13  # the first opset with a DequantizeLinear of channels
_PARSED = 4  # models that are remembered
TOLERANCE = 0.5  # of a step, by which codes may reach beyond a clip that they stand for


def rewrite(
    quantization: Quantization, policy: Policy, *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the model in the formats of a policy, as a serialised ONNX model.

    Inputs and outputs keep their names, types and open dimensions. An all-fp32 policy gives the model itself,
    with the sums before its norms kept from a slow fusion.

    Args:
        metadata: written into the file, beside the model's own.

    Raises:
        TrilobitError: the policy does not fit the model, or what it was calibrated for.
    """
    plan = instructions(quantization, policy)
    model = _parsed(quantization.model.content, needed_opset(plan)).clone()
    return _performed(model, quantization.model, plan, metadata or {})


def rewrite_once(quantization: Quantization, policy: Policy) -> bytes:
    """Return what `rewrite` does; the model is not remembered."""
    plan = instructions(quantization, policy)
    model = _parse(quantization.model.content, needed_opset(plan))
    return _performed(model, quantization.model, plan, {})


def _performed(
    model: ir.Model, imported: ImportedModel, plan: Instructions, metadata: Mapping[str, str]
) -> bytes:
    _Rewriting(model, imported).perform(plan)
    model.metadata_props.update(metadata)
    proto = ir.to_proto(model)
    keep_kernels(proto.graph)
    data: bytes = proto.SerializeToString()
    return data


def needed_opset(plan: Instructions) -> int:
    """Return the oldest opset that has the types of the weights and the dequantization of channels."""
    types = [load_format(product.weight_format).weight.stored_as for product in plan.products]
    return max((OPSETS.get(each, BY_CHANNEL) for each in types), default=BY_CHANNEL if plan.quantize else 0)


def _parse(content: bytes, opset: int) -> ir.Model:
    """Return a model with at least this version of ONNX's operations."""
    model = ir.from_proto(onnx.load_from_string(content))
    if model.opset_imports.get("", 1) < opset:
        convert_version(model, opset, fallback=True)
        model.ir_version = max(model.ir_version or 0, IR_VERSIONS.get(opset, 0))
    return model


def at_opset(content: bytes, opset: int) -> bytes | None:
    """Return a model with a newer version of ONNX's operations; None if it has that already.

    Raises:
        Exception: whatever the converter rejects.
    """
    versions = {each.domain: each.version for each in onnx.load_from_string(content).opset_import}
    if versions.get("", 1) >= opset:
        return None
    data: bytes = ir.to_proto(_parse(content, opset)).SerializeToString()
    return data


_parsed = lru_cache(maxsize=_PARSED)(_parse)


class _Rewriting:
    """A model while it is changed."""

    def __init__(self, model: ir.Model, imported: ImportedModel) -> None:
        self.model, self.imported = model, imported
        self.writer = GraphWriter(model)
        nodes = {str(node.name): node for node in model.graph}
        self.nodes = {unit.name: [nodes[name] for name in unit.nodes] for unit in imported.units}
        self.codes: dict[str, str] = {}
        self.params: dict[str, QuantParams] = {}

    def perform(self, plan: Instructions) -> None:
        """Do what was decided."""
        for product in plan.products:
            unit = product.unit.name
            self.nodes[unit] = write_product(self.writer, product, self.nodes[unit])
        for each in self.imported.units:
            if each.name in plan.integer and each.op in ("Add", "Mul") and not on_codes(self.imported, each):
                self._store_constants(each)
        self.params = {each.tensor: each.params for each in plan.quantize}
        for quantize in plan.quantize:
            self._quantize(quantize)
        for each in self.imported.units:
            if each.name in plan.integer and each.op == GATED:
                self._gate(each)
        for dequantize in plan.dequantize:
            self._dequantize(dequantize)
        self._remove_unread()

    def _quantize(self, each: Quantize) -> None:
        value = self.writer.values[each.tensor]
        unit = self.imported.producers.get(each.tensor)
        if each.given and unit is not None and on_codes(self.imported, unit):
            self.codes[each.tensor] = self._computed_on_codes(unit, each)
            return
        if each.given:
            value = self._unclipped(value, each.params)
        inputs = [str(value.name), *self.writer.stored(each.params)]
        self.codes[each.tensor] = self.writer.node("QuantizeLinear", f"{each.tensor}.codes", inputs)
        self.writer.after(value.producer())

    def _computed_on_codes(self, unit: Unit, each: Quantize) -> str:
        """Write a straight line or a padding as what it is of codes, and return what it gives."""
        (node,), (source, *_) = self.nodes[unit.name], unit.inputs
        codes, name = self.codes[source], f"{each.tensor}.codes"
        if unit.op == "Pad":
            rest = [str(value.name) if value else "" for value in node.inputs[1:]]
            rest[1:2] = [self.writer.stored(each.params)[1]]
            given = {key: attribute.value for key, attribute in node.attributes.items()}
            new = self.writer.node("Pad", name, [codes, *rest], **given)
        else:
            new = self._clipped(name, codes, rescalings(self.imported)[unit.name], self.params[source])
        self.writer.before(node)
        return new

    def _clipped(self, name: str, codes: str, line: Rescaling, params: QuantParams) -> str:
        """Write the clip of codes where it does anything."""
        first, last = line.code_range(params)
        if (first, last) == (0, params.largest):
            return codes
        ends = [self.writer.typed(f"{name}.{end}", np.array(end), "UINT8") for end in (first, last)]
        return self.writer.node("Clip", name, [codes, *ends])

    def _gate(self, unit: Unit) -> None:
        """Write a hard swish of codes as the product of its input and of a clip of that."""
        (node,), (source,) = self.nodes[unit.name], unit.inputs
        line, params = rescalings(self.imported)[unit.name], self.params[source]
        if not line.fits(params):
            return
        clipped = self._clipped(f"{unit.name}.gate.codes", self.codes[source], line, params)
        constants = self.writer.stored(line.params(params))
        gate = self.writer.node("DequantizeLinear", f"{unit.name}.gate", [clipped, *constants])
        self.writer.before(node)
        node.op_type = "Mul"
        node.resize_inputs(2)
        node.replace_input_with(1, self.writer.values[gate])

    def _store_constants(self, unit: Unit) -> None:
        """Round the single numbers that a sum or product of codes reads."""
        node = self.nodes[unit.name][0]
        for value in dict.fromkeys(node.inputs):
            if value is None or value.const_value is None:
                continue
            array = value.const_value.numpy()
            params = load_activation_format("int8").params(float(array.min()), float(array.max()))
            codes = np.clip(np.rint(array / params.scale) + params.zero_point, 0, params.largest)
            stored = self.writer.typed(f"{value.name}.stored", codes, "UINT8")
            inputs = [stored, *self.writer.stored(params)]
            name = self.writer.node("DequantizeLinear", f"{value.name}.for.{unit.name}", inputs)
            self.writer.before(node)
            replace_reads(node, value, self.writer.values[name])

    def _unclipped(self, value: ir.Value, params: QuantParams) -> ir.Value:
        """Return what a clip reads where the codes of its output stop at the same values."""
        tail = self.nodes[self.imported.producers[str(value.name)].name][1:]
        node = value.producer()
        while node is not None and node in tail and _vanishes(node, params):
            value = next(read for read in node.inputs if read is not None)
            node = value.producer()
        return value

    def _dequantize(self, each: Dequantize) -> None:
        old = self.writer.values[each.tensor]
        if each.reader == CALLER:
            self._give(each, old)
            return
        nodes = self.nodes[each.reader]
        new = self.writer.values[self._reals(f"{each.tensor}.for.{each.reader}", each)]
        self.writer.before(nodes[0])
        for node in nodes:
            replace_reads(node, old, new)

    def _give(self, each: Dequantize, old: ir.Value) -> None:
        """Let the network give what codes stand for, under the name that it has."""
        name = str(old.name)
        self.writer.rename(old, f"{name}.real")
        new = self.writer.values[self._reals(name, each)]
        self.writer.before(None)
        new.shape, new.type = old.shape, old.type
        for position, value in enumerate(self.model.graph.outputs):
            if value is old:
                self.model.graph.outputs[position] = new

    def _reals(self, name: str, each: Dequantize) -> str:
        """Write the real numbers of codes as their reader needs them."""
        codes = self.codes[each.tensor]
        match each.form:
            case "scalar":
                return self.writer.node("DequantizeLinear", name, [codes, *self.writer.stored(each.params)])
            case "channel":
                constants = self.writer.stored(each.params, each.channels)
                return self.writer.node("DequantizeLinear", name, [codes, *constants], axis=each.axis)
        scale, zero = self.writer.stored(each.params, real=True)
        real = self.writer.node("Cast", f"{name}.code", [codes], to="FLOAT")
        return self.writer.node("Mul", name, [self.writer.node("Sub", f"{name}.steps", [real, zero]), scale])

    def _remove_unread(self) -> None:
        """Remove clips that vanished and numbers that were replaced."""
        graph = self.model.graph
        for nodes in reversed(self.nodes.values()):
            for node in reversed(nodes):
                if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                    graph.remove(node, safe=True)
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]


def _vanishes(node: ir.Node, params: QuantParams) -> bool:
    """Return whether codes of these parameters reach no further than a clip lets through."""
    if node.domain or node.op_type not in CLIPS:
        return False
    low, high = _bounds(node)
    slack = TOLERANCE * params.scale
    first = -params.zero_point * params.scale
    return first >= low - slack and first + params.largest * params.scale <= high + slack


def _bounds(node: ir.Node) -> tuple[float, float]:
    """Return the least and the largest value that a Relu or a Clip lets through; NaN of computed ones."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    ends = [-np.inf, np.inf]
    for position, value in enumerate(node.inputs[1:]):
        if value is not None:
            ends[position] = np.nan if value.const_value is None else float(value.const_value.numpy())
    return ends[0], ends[1]

"""Which number formats each unit of a model can take on a runtime, found by trying: a file of that unit alone
is written and compiled, and the runtime says which kernels it runs.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from hw_profiles.errors import one_line
from hw_profiles.graph.formats import FP32, in_integers
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.registry import names
from hw_profiles.runtimes.runtime import Artifact, NamesKernels, Runtime
from nas.checks.model_notes import is_quantized
from nas.emit.layer_formats import UnitFormats, layer_formats
from nas.emit.rewrite_onnx import at_opset, rewrite_once
from nas.emit.unit_files import UnitFiles, made_up
from supernet.formats.loading import load_format, policy_precision
from supernet.formats.onnx_weights import OPSETS, bits_of
from supernet.imported.following import FOLLOWERS, follows, keeps_scale, on_codes
from supernet.imported.model import ImportedModel, Unit
from supernet.imported.units import PRODUCTS
from supernet.registry import FORMATS

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
MATRICES = ("Gemm", "MatMul")
CONVOLUTION = "Conv"


def unit_formats(
    model: ImportedModel, runtime: Runtime, *, more: Sequence[str] = ()
) -> Mapping[str, UnitFormats]:
    """Return what each unit of a model can be in on a runtime, by unit.

    Args:
        more: pairs to be tried besides the registered formats, such as `int8/fp32`: weights in 8 bits for
            size only; of files only.
    """
    if runtime.artifact != "onnx":
        return layer_formats(model, runtime)
    trials = _Trials(model, runtime, more)
    return {unit.name: trials.formats(unit) for unit in model.units}


def _weight_formats(sums: IntegerSums) -> list[str]:
    """Return formats of weights worth trying: stored in as many bits as they have, unsigned ones only where
    signed ones lose a bit.
    """
    offered = []
    for name in names("trilobit.formats", FORMATS):
        weight = load_format(name).weight
        wide = name != FP32 and weight.bits == bits_of(weight.stored_as)
        if wide and (sums.reduced or not weight.offset):
            offered.append(name)
    return offered


class _Trials:
    """Units of one model, each tried alone."""

    def __init__(self, model: ImportedModel, runtime: Runtime, more: Sequence[str]) -> None:
        self.model, self.runtime, self.device = model, runtime, runtime.describe()
        self.parts = UnitFiles(model)
        self.newer = {opset: self._compared(opset) for opset in sorted({*OPSETS.values()})}
        self.offered = tuple(dict.fromkeys((*_weight_formats(self.device.sums), *more)))

    def formats(self, unit: Unit) -> UnitFormats:
        """Return what a unit can be in; units that are alike are tried once."""
        trial, beside = (self.device, self.offered, *self.newer.values()), self._beside(unit)
        key = (*trial, *self._kind(unit), *(self._kind(beside) if beside is not None else ()))
        if key not in _KNOWN:
            _KNOWN[key] = self._tried(unit)
        return _KNOWN[key]

    def _kind(self, unit: Unit) -> tuple[Hashable, ...]:
        """Return what units that are alike have in common."""
        size = self.model.constants[unit.weight].shape if unit.weight else ()
        return (unit.layer, unit.op, len(unit.nodes), bool(unit.bias), size)

    def _beside(self, unit: Unit) -> Unit | None:
        """Return another convolution that reads what one does; None without."""
        if unit.op != CONVOLUTION or not unit.weighted:
            return None
        alike = (each for each in self.model.units if each.op == CONVOLUTION and each.weighted)
        return next((each for each in alike if each is not unit and each.inputs[0] == unit.inputs[0]), None)

    def _tried(self, unit: Unit) -> UnitFormats:
        if why := self._why_kept(unit):
            return UnitFormats(refused={"int8": why})
        others = [self.model.dtypes[name] for name in (*unit.inputs[:1], *unit.outputs[:1])]
        if others and {*others} != {"float32"}:
            return UnitFormats(refused={"int8": f"its numbers are {' and '.join(dict.fromkeys(others))}"})
        try:
            part = self.parts.model(unit)
            plain = self._kernels(part.content)
        except Exception as error:  # whatever the engine, or a part cut out of its graph, rejects
            return UnitFormats(refused={"int8": f"cannot be tried alone: {one_line(error)}"})
        refused = {name: self._why_not(part, name, plain) for name in self._candidates(unit)}
        fitting = [name for name, reason in refused.items() if not reason]
        reasons = {name: reason for name, reason in refused.items() if reason}
        if unit.weighted or unit.op in MATRICES:
            return UnitFormats((FP32, *fitting), reasons)
        return UnitFormats(refused=reasons, follows=bool(fitting) and follows(self.model, unit))

    def _why_kept(self, unit: Unit) -> str:
        """Return why a unit stays as it is without being tried; nothing where it may change."""
        if unit.weighted:
            return ""
        weights = [self.model.producers[name] for name in unit.inputs[1:2] if name in self.model.producers]
        stored_codes = any(each.op == "DequantizeLinear" and not each.inputs for each in weights)
        if is_quantized(unit.op) or (unit.op in PRODUCTS and stored_codes):
            return "is quantized already"
        if unit.op in (*FOLLOWERS, *MATRICES):
            return ""
        if unit.op in PRODUCTS:
            return "its weight is computed, not stored in the file"
        return f"nothing computes {unit.op} on integers"

    def _candidates(self, unit: Unit) -> tuple[str, ...]:
        return self.offered if unit.weighted else ("int8",)

    def _kernels(self, content: bytes) -> Counter[str]:
        return Counter(self.runtime.compile(Artifact(content)).kernels())

    def _why_not(self, part: ImportedModel, name: str, plain: Counter[str]) -> str:
        """Return why a unit cannot be in a format; nothing if it can."""
        (unit,) = part.units
        weight = load_format(policy_precision(name).weight).weight
        if unit.weighted and weight.operand is not None and not weight.whole(unit.op):
            return f"is for matrix products, this is a {unit.op}"
        if unit.weighted and (reason := self.newer.get(OPSETS.get(weight.stored_as, 0))):
            return reason
        try:
            content = rewrite_once(made_up(part, name, self.device.sums), {unit.name: name})
            kernels = self._kernels(content)
        except Exception as error:  # whatever the engine rejects
            return f"{self.device.engine} does not take it: {one_line(error)}"
        misfit = self._misfit(part, name, kernels, plain)
        return "" if misfit and self._fits_beside(unit, name) else misfit

    def _fits_beside(self, unit: Unit, name: str) -> bool:
        """Return whether a convolution is computed on integers where another one reads the same in the same
        format, as in the model: alone, an engine may take the stride out of it, to a layer of its own.
        """
        beside, precision = self._beside(unit), policy_precision(name)
        if beside is None or not in_integers(precision.weight, precision.activation):
            return False
        pair = self.parts.model(unit, beside)
        try:
            numbers = made_up(pair, name, self.device.sums)
            content = rewrite_once(numbers, {unit.name: name, beside.name: name})
            executable = self.runtime.compile(Artifact(content))
        except Exception:  # whatever the engine rejects
            return False
        named = executable.named_kernels() if isinstance(executable, NamesKernels) else {}
        return any(named.get(node) in self.runtime.integer_kernels for node in unit.nodes)

    def _compared(self, opset: int) -> str:
        """Return why the whole model cannot have the version of ONNX's operations that some type of weights
        needs; nothing if it can, and runs on the same kernels."""
        try:
            content = at_opset(self.model.content, opset)
            if content is None or self._kernels(content) == self._kernels(self.model.content):
                return ""
        except Exception as error:  # whatever the converter or the engine rejects
            return f"needs opset {opset}, which the model cannot have: {one_line(error)}"
        return f"needs opset {opset}, at which {self.device.engine} has other kernels for the model"

    def _misfit(self, part: ImportedModel, name: str, kernels: Counter[str], plain: Counter[str]) -> str:
        """Return what is wrong with the kernels that run a unit in a format; nothing if they are what it is
        for."""
        engine, precision = self.device.engine, policy_precision(name)
        ran = ", ".join(kind for kind in kernels if kernels[kind] and kind not in CONVERSIONS)
        (unit,) = part.units
        if keeps_scale(unit) or on_codes(part, unit):
            converted = sum(kernels[kind] for kind in CONVERSIONS)
            many = converted > len(unit.inputs) + len(unit.outputs)
            return f"{engine} converts to real numbers for {ran}" if many else ""
        rounds = load_format(precision.weight).weight.operand is not None
        if rounds or in_integers(precision.weight, precision.activation):
            integer = sum(kernels[kind] for kind in self.runtime.integer_kernels)
            stored = rounds and kernels == plain  # products of real numbers with weights as they are stored
            return (
                ""
                if stored or (integer and not kernels[unit.op])
                else f"{engine} runs it in real numbers: {ran}"
            )
        return "" if kernels == plain else f"{engine} makes real numbers of it at each inference: {ran}"


_KNOWN: dict[Hashable, UnitFormats] = {}

"""Whether a runtime runs the file of a policy as the policy says."""

from collections.abc import Mapping

from hw_profiles.graph.formats import FP32
from hw_profiles.runtimes.runtime import Executable, NamesKernels, Runtime
from nas.emit.instructions import completed, instructions
from supernet.imported.following import keeps_scale, on_codes
from supernet.imported.model import Unit
from supernet.imported.rescaling import GATED
from supernet.ptq.quantization import Policy, Quantization

_PARTS = ("", ".sums")  # nodes of a unit that its kernel may be called after


def check_kernels(
    executable: Executable, runtime: Runtime, quantization: Quantization, policy: Policy
) -> tuple[str, ...]:
    """Return one line for each unit that did not become what was asked: a product or a follower that stayed
    in real numbers, or an fp32 product that was quantized without being asked.

    Nothing is known of units whose kernels the runtime does not name.
    """
    if not isinstance(executable, NamesKernels):
        return ()
    model, integers = quantization.model, runtime.integer_kernels
    kernels, formats = executable.named_kernels(), completed(model, policy)
    products = instructions(quantization, policy).products
    whole = {each.unit.name for each in products if each.written in ("integers", "product")}
    lines = []
    for unit in model.units:
        if keeps_scale(unit) or on_codes(model, unit) or unit.op == GATED:
            continue  # nothing is computed, or as the range of what it reads allows
        kernel, asked = _kernel(unit, kernels), formats[unit.name]
        in_integers = unit.name in whole or (asked != FP32 and not unit.weighted)
        if (kernel or in_integers) and (kernel in integers) != in_integers:
            lines.append(f"{unit.name}: {asked} was asked for, {kernel or 'no known kernel'} runs it")
    return tuple(lines)


def _kernel(unit: Unit, kernels: Mapping[str, str]) -> str:
    names = [f"{node}{part}" for node in unit.nodes for part in _PARTS]
    return next((kernels[name] for name in names if name in kernels), "")

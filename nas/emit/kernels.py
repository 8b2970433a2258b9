"""Whether a runtime runs the file of a policy as the policy says."""

from collections.abc import Mapping

from hw_profiles.graph.formats import FP32
from hw_profiles.runtimes.runtime import Executable, NamesKernels, Runtime
from nas.emit.instructions import completed, instructions
from supernet.imported.following import keeps_scale
from supernet.imported.model import Unit
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
    kernels, formats = executable.named_kernels(), completed(quantization.model, policy)
    integers = runtime.integer_kernels
    whole = {
        each.unit.name
        for each in instructions(quantization, policy).products
        if each.written in ("integers", "product")
    }
    lines = []
    for unit in quantization.model.units:
        kernel = _kernel(unit, kernels)
        asked = unit.name in whole or (formats[unit.name] != FP32 and not unit.weighted)
        if keeps_scale(unit) or (not kernel and not asked) or (kernel in integers) == asked:
            continue
        lines.append(
            f"{unit.name}: {formats[unit.name]} was asked for, {kernel or 'no known kernel'} runs it"
        )
    return tuple(lines)


def _kernel(unit: Unit, kernels: Mapping[str, str]) -> str:
    names = [f"{node}{part}" for node in unit.nodes for part in _PARTS]
    return next((kernels[name] for name in names if name in kernels), "")

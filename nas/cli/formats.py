"""`nas formats`: the number formats that a layer can take, and what computes with them."""

from typing import Any

from hw_profiles.graph.formats import FP32, in_integers
from hw_profiles.registry import names
from nas.run.reporting import Reporter
from supernet.formats.loading import load_format
from supernet.registry import FORMATS

MATRIX = (1024, 1024)  # whose scales are counted


def list_formats(reporter: Reporter) -> list[dict[str, Any]]:
    """Report every registered number format: what it stores, and whether kernels multiply what is stored or
    the real values that it stands for."""
    listed = []
    for name in sorted(names("trilobit.formats", FORMATS)):
        row = _described(name)
        listed.append(row)
        scales = f", a scale per {row['scales_per']}" if row["scales_per"] else ""
        tensors = "weights and activations" if row["activations"] else "weights"
        reporter.say(
            f"{name:<12} {row['bits']:>2} bits of {tensors}, stored as ONNX {row['onnx']}{scales} "
            f"({row['bits_with_scales']:.2f} with scales); "
            f"on {row['on']} activations computed in {row['computed_in']}"
        )
    reporter.say(
        f"Any weights on {FP32} activations (such as int4/{FP32}) are stored in their format and computed in "
        f"{FP32}: that saves size, not time."
    )
    return listed


def _described(name: str) -> dict[str, Any]:
    number_format = load_format(name)
    weight, on = number_format.weight, number_format.on
    return {
        "name": name,
        "bits": weight.bits,
        "bits_with_scales": weight.bits_per_weight(MATRIX),
        "onnx": weight.stored_as,
        "scales_per": str(weight.granularity) if weight.needs_scale else None,
        "activations": number_format.activation is not None,
        "on": on,
        "computed_in": _computed_in(name),
    }


def _computed_in(name: str) -> str:
    number_format = load_format(name)
    operand = number_format.weight.operand
    if operand is not None:
        scales = f"a scale per group of {operand.group}" if operand.group else "one scale"
        return f"integers, by products that round these to {operand.bits} bits at each inference, {scales}"
    return "integers" if in_integers(name, number_format.on) else "real numbers"

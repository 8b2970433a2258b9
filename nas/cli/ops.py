"""`nas ops`: the operations that a network can be made of, and what each part of Trilobit does with them."""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from hw_profiles.engines import missing_engine
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.ops import OPS, Op
from nas.run.reporting import Reporter

# whoever interprets operations, in the order in which a network passes them
CONSUMERS: Mapping[str, str] = {
    "lowering": "hw_profiles.graph.lowering:LOWERING",
    "probing": "hw_profiles.measure.in_context:PROBES",
    "calibration": "hw_profiles.profiles.latency_model:CLASSES",
    "ort": "hw_profiles.runtimes.ort.runtime:OPERATIONS",
    "litert": "hw_profiles.runtimes.litert.operators:OPERATIONS",
    "ncnn": "hw_profiles.runtimes.ncnn.operations:OPERATIONS",
    "openvino": "hw_profiles.runtimes.openvino.operations:OPERATIONS",
    "tvm": "hw_profiles.runtimes.tvm_cpu.templates:TEMPLATES",
    "systolic": "hw_profiles.runtimes.analytical.systolic:COSTS",
    "torch": "supernet.graph.operations:TORCH",
    "integers": "supernet.graph.simulate:INTEGERS",
    "numpy": "hw_profiles.reference.integer_ops:REFERENCE",
    "onnx": "nas.emit.operations:NODES",
    "drawing": "nas.report.drawing:LABELS",
}
_YES, _NO = "x", "."


def consumers() -> tuple[dict[str, Consumer[Any]], dict[str, str]]:
    """Return every interpreter of operations by its short name, and why some cannot be asked: an engine that
    is not installed.
    """
    available, missing = {}, {}
    for name, where in CONSUMERS.items():
        try:
            available[name] = resolve_name(where)
        except ModuleNotFoundError as error:
            why = missing_engine(error)
            if not why:
                raise
            missing[name] = why
    return available, missing


def list_operations(reporter: Reporter) -> list[dict[str, Any]]:
    """Report every operation: its attributes, and for each interpreter whether it knows it, or why not."""
    available, missing = consumers()
    listed = [_described(op, available) for op in OPS.values()]
    width = max(map(len, OPS))
    reporter.say(" " * width + " " + " ".join(available))
    for row in listed:
        cells = (f"{_NO if name in row['refused'] else _YES:^{len(name)}}" for name in available)
        reporter.say(f"{row['name']:<{width}} {' '.join(cells)}".rstrip())
    reporter.say("")
    for name, consumer in available.items():
        for why, ops in _reasons(consumer).items():
            reporter.say(f"{name}: no {', '.join(ops)}: {why}")
    for name, why in missing.items():
        reporter.say(f"{name}: {why}")
    return listed


def _described(op: Op, interpreters: Mapping[str, Consumer[Any]]) -> dict[str, Any]:
    refusals = {name: consumer.refusal(op.name) for name, consumer in interpreters.items()}
    return {
        "name": op.name,
        "attributes": list(op.attributes),
        "fusible": op.fusible,
        "known": [name for name, why in refusals.items() if why is None],
        "refused": {name: why for name, why in refusals.items() if why is not None},
    }


def _reasons(consumer: Consumer[Any]) -> dict[str, list[str]]:
    """Return the operations that are refused for each reason."""
    reasons: dict[str, list[str]] = {}
    for op in OPS:
        if (why := consumer.refusal(op)) is not None:
            reasons.setdefault(why, []).append(op)
    return reasons

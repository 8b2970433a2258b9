"""LiteRT as a device of this machine. Imports no engine."""

from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.litert.options import LitertOptions, described
from hw_profiles.runtimes.plugin import DeviceKind, Recipe


def _open(options: LitertOptions) -> Device:
    from hw_profiles.measure.in_context import in_context
    from hw_profiles.runtimes.device import MeasuredDevice
    from hw_profiles.runtimes.litert.runtime import LitertRuntime  # the engine: only where something runs
    from hw_profiles.runtimes.transports.local import Local

    return MeasuredDevice(LitertRuntime(options), Local(), in_context)


LITERT = DeviceKind(
    summary="this machine through LiteRT",
    open=_open,
    options=LitertOptions,
    argument="provider",
    metavar="PROVIDER",
    artifact="onnx",
    engines={"ai_edge_litert": "ai-edge-litert", "flatbuffers": "flatbuffers", "onnx": "onnx"},
    engine="ai-edge-litert",
    title="LiteRT",
    elsewhere="hw_profiles.runtimes.litert.elsewhere:LitertHere",
    described=described,
    recipes=(
        Recipe("static", "LiteRT's full int8", "hw_profiles.runtimes.litert.recipes:static_int8"),
        Recipe("dynamic", "LiteRT's dynamic range", "hw_profiles.runtimes.litert.recipes:dynamic_range"),
    ),
)

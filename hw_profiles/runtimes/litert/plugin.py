"""LiteRT as a device of this machine. Imports no engine."""

from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.litert.options import LitertOptions
from hw_profiles.runtimes.plugin import DeviceKind


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
    artifact="tflite",
    engines={"ai_edge_litert": "ai-edge-litert", "flatbuffers": "flatbuffers"},
    engine="ai-edge-litert",
    title="LiteRT",
)

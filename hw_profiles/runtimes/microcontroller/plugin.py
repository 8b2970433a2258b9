"""TensorFlow Lite Micro as a device. Imports no engine."""

from pathlib import Path

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.microcontroller.options import MicroOptions
from hw_profiles.runtimes.plugin import DeviceKind, Recipe

REPORT = ".csv"


def _open(options: MicroOptions) -> Device:
    from hw_profiles.runtimes.microcontroller.device import MicroDevice
    from hw_profiles.runtimes.microcontroller.runtime import MicroRuntime
    from hw_profiles.runtimes.tflite_micro.interpreter import engine  # only where something runs

    engine()  # refused now, not when the first network is run
    return MicroDevice(MicroRuntime(), _times(Path(options.times)) if options.times else None)


def _times(path: Path) -> Device:
    """Return what a published table, a board's report or a profile says."""
    from hw_profiles.profiles.reported_times import read_report
    from hw_profiles.runtimes.analytical.recorded import RecordedDevice
    from hw_profiles.runtimes.analytical.table import TableDevice

    if path.suffix == REPORT:
        return RecordedDevice.of(read_report(path))
    try:
        return TableDevice(path=path)
    except TrilobitError:
        return RecordedDevice(profile=path)


TFLITE_MICRO = DeviceKind(
    summary="a microcontroller by TensorFlow Lite Micro: arena and flash, no times but given ones",
    open=_open,
    options=MicroOptions,
    argument="times",
    metavar="TIMES",
    artifact="onnx",
    engines={
        "tflite_micro": "tflite-micro",
        "ai_edge_litert": "ai-edge-litert",
        "flatbuffers": "flatbuffers",
        "onnx": "onnx",
    },
    engine="tflite-micro",
    title="TensorFlow Lite Micro",
    recipes=(Recipe("static", "LiteRT's full int8", "hw_profiles.runtimes.litert.recipes:static_int8"),),
)

"""ONNX Runtime as a device of this machine. Imports no engine."""

from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.ort.options import OrtOptions
from hw_profiles.runtimes.plugin import DeviceKind, Recipe


def _open(options: OrtOptions) -> Device:
    from hw_profiles.measure.in_context import in_context
    from hw_profiles.runtimes.device import MeasuredDevice
    from hw_profiles.runtimes.ort.runtime import OrtRuntime  # the engine: only where something runs
    from hw_profiles.runtimes.transports.local import Local

    return MeasuredDevice(OrtRuntime(options), Local(gpu=options.on_gpu), in_context)


ORT = DeviceKind(
    summary="this machine through ONNX Runtime",
    open=_open,
    options=OrtOptions,
    argument="provider",
    metavar="PROVIDER",
    artifact="onnx",
    engines={"onnxruntime": "onnxruntime", "onnx": "onnx"},
    engine="onnxruntime",
    title="ONNX Runtime",
    elsewhere="hw_profiles.runtimes.ort.elsewhere:OrtHere",
    recipes=(
        Recipe("defaults", "ONNX Runtime's defaults", "hw_profiles.runtimes.ort.recipes:static_defaults"),
        Recipe("advised", "ONNX Runtime's advice for x86", "hw_profiles.runtimes.ort.recipes:static_advised"),
        Recipe("dynamic", "dynamic int8", "hw_profiles.runtimes.ort.recipes:dynamic_defaults"),
    ),
)

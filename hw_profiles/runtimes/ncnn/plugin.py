"""ncnn as a device of this machine. Imports no engine."""

from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.ncnn.options import NcnnOptions, described
from hw_profiles.runtimes.plugin import DeviceKind


def _open(options: NcnnOptions) -> Device:
    from hw_profiles.measure.in_context import in_context
    from hw_profiles.runtimes.device import MeasuredDevice
    from hw_profiles.runtimes.ncnn.runtime import NcnnRuntime  # the engine: only where something runs
    from hw_profiles.runtimes.transports.local import Local

    return MeasuredDevice(NcnnRuntime(options), Local(), in_context)


NCNN = DeviceKind(
    summary="this machine through ncnn, in real numbers",
    open=_open,
    options=NcnnOptions,
    argument="precision",
    metavar="PRECISION",
    artifact="onnx",
    engines={"ncnn": "ncnn", "pnnx": "pnnx", "onnx": "onnx"},
    engine="ncnn",
    title="ncnn",
    described=described,
)

"""OpenVINO as a device of this machine. Imports no engine."""

from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.openvino.options import OpenVinoOptions, described
from hw_profiles.runtimes.plugin import DeviceKind


def _open(options: OpenVinoOptions) -> Device:
    from hw_profiles.measure.in_context import in_context
    from hw_profiles.runtimes.device import MeasuredDevice
    from hw_profiles.runtimes.openvino.runtime import OpenVinoRuntime  # the engine: only where something runs
    from hw_profiles.runtimes.transports.local import Local

    return MeasuredDevice(OpenVinoRuntime(options), Local(), in_context)


OPENVINO = DeviceKind(
    summary="this machine through OpenVINO",
    open=_open,
    options=OpenVinoOptions,
    argument="provider",
    metavar="PROVIDER",
    artifact="onnx",
    engines={"openvino": "openvino", "onnx": "onnx"},
    engine="openvino",
    title="OpenVINO",
    described=described,
    elsewhere="hw_profiles.runtimes.openvino.elsewhere:OpenVinoHere",
)

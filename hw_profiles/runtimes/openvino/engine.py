"""OpenVINO's package, without the part of it that writes an id to the home folder and sends events. The only
place that imports it.
"""

import sys

_TELEMETRY = "openvino_telemetry"
_known = sys.modules.get(_TELEMETRY)
sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # "there is none": it has a stub for that
try:
    import openvino as openvino
finally:
    del sys.modules[_TELEMETRY]
    if _known is not None:
        sys.modules[_TELEMETRY] = _known

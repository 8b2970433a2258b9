"""What OpenVINO is asked for. Imports no engine."""

from hw_profiles.graph.consumer import Consumer
from hw_profiles.runtimes.onnx_layers import LAYER_KINDS

OPERATIONS: Consumer[tuple[str, ...]] = Consumer(
    "OpenVINO", LAYER_KINDS, otherwise="it has no such operation"
)

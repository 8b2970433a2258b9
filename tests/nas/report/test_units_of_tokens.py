"""The device view of units that are no layers on maps."""

import pytest

from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.graph.tensor_type import BATCH, TensorType
from nas.report.device_figures import Speedup, _pair_text

PATCHES = Layer.of("Conv", TensorType((BATCH, 1, 28, 28), "int8"), weight=(32, 1, 4, 4), strides=(4, 4))
MATRIX = Layer.of("MatMul", TensorType((BATCH, 16, 32), "int8"), weight=(32, 48), to="fp32")
POINTWISE = map_layer("conv", (8, 4, 4), 16, activation_format="int8", weight_format="int8")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (PATCHES, "1\u00d728\u00d728→32\u00d77\u00d77"),
        (MATRIX, "16\u00d732→16\u00d748"),
        (POINTWISE, "8→16 channels, 4\u00d74, stride 1"),
    ],
)
def test_every_unit_says_what_it_reads_and_gives(layer: Layer, said: str) -> None:
    assert said in _pair_text(Speedup(layer, 2e-6, 1e-6))

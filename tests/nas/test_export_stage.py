"""What the manifest says of a network's latency."""

import json

import pytest

from hw_profiles.measurement import Measurement
from nas.stages.export import compared


def test_latency_is_compared_with_the_largest_network_in_fp32() -> None:
    found = compared(Measurement((1e-3, 2e-3, 3e-3)), Measurement((8e-3,)))
    assert (found["median_s"], found["reference_median_s"]) == (2e-3, 8e-3)
    assert found["ratio_to_reference"] == pytest.approx(0.25)


def test_a_device_that_cannot_run_fp32_has_nothing_to_compare_with() -> None:
    found = compared(Measurement((1e-3,)), Measurement(error="no fp32 there"))
    assert (found["reference_median_s"], found["ratio_to_reference"]) == (None, None)
    json.dumps(found, allow_nan=False)

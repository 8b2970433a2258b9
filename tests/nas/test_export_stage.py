"""What the manifest says of a network's latency."""

import json

import pytest

from hw_profiles.measure.measurement import Measurement
from nas.export.timing import Timed, compared


def test_latency_is_compared_with_other_networks_of_the_same_run() -> None:
    references = {"largest/fp32": Measurement((8e-3,)), "same/fp32": Measurement((4e-3, 4e-3))}
    found = compared(Timed(Measurement((1e-3, 2e-3, 3e-3)), references))
    assert found["median_s"] == 2e-3
    assert found["references_s"] == {"largest/fp32": 8e-3, "same/fp32": 4e-3}
    assert found["ratios"] == {"largest/fp32": pytest.approx(0.25), "same/fp32": pytest.approx(0.5)}


def test_a_device_that_cannot_run_one_has_nothing_to_compare_with() -> None:
    found = compared(Timed(Measurement((1e-3,)), {"same/fp32": Measurement(error="no fp32 there")}))
    assert found["ratios"] == found["references_s"] == {"same/fp32": None}
    json.dumps(found, allow_nan=False)

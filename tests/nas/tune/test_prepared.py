"""What preparing alone does to the time of a model in fp32 decides which file fp32 is."""

import pytest

from nas.tune.setup.prepared import PreparedTime


@pytest.mark.parametrize(("ratio", "pays"), [(0.7, True), (0.99, False), (1.0, False), (1.3, False)])
def test_a_prepared_model_that_is_no_faster_is_not_taken(ratio: float, pays: bool) -> None:
    assert PreparedTime(ratio).pays is pays


def test_what_was_not_measured_does_not_pay() -> None:
    assert not PreparedTime().pays

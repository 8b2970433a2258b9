"""Where a search by reference points goes, in people's units."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.problem.reference_points import reference_points_of
from nas.problem.targets import resolve_targets
from nas.run.config import RunConfig, SearchSection
from nas.search.objectives import Values

LARGEST = {"latency": 2e-4, "size": 1e6, "macs": 3e6, "memory": 6e4}


def aims(*texts: str, **limits: str) -> Values:
    config = replace(RunConfig(), search=SearchSection(searcher="rnsga2", aims=texts), constraints=limits)
    return reference_points_of(config, resolve_targets(config, LARGEST), LARGEST)


def test_aims_are_minimised_and_open_ones_are_nan() -> None:
    found = aims("accuracy=95%, latency=0.1ms", "size = 50%")
    np.testing.assert_allclose(found, [[-0.95, 1e-4, np.nan], [np.nan, np.nan, 5e5]])


def test_without_aims_the_limits_count() -> None:
    np.testing.assert_allclose(aims(latency="60%"), [[np.nan, 1.2e-4, np.nan]])
    np.testing.assert_allclose(aims("size=1KB", latency="60%"), [[np.nan, np.nan, 1e3]])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "needs to know where to go: give a reference point"),
        (("macs=3M",), "macs is no objective of the search"),
        (("speed=3M",), "write objectives"),
        (("latency",), "write objectives"),
        (("latency=1ms,latency=2ms",), "each once"),
        (("latency=fast",), "write a number and one of: s, ms"),
    ],
)
def test_aims_that_say_nothing_are_refused(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        aims(*texts)


def test_a_limit_on_no_objective_is_no_aim() -> None:
    with pytest.raises(TrilobitError, match="a limit on one of accuracy, latency, size"):
        aims(macs="2M")

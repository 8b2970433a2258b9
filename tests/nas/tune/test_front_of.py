"""Which judged files are on the front of a tune."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from nas.run.tuned_document import MeasuredLatency
from nas.tune.evaluation.quality import PolicyQuality
from nas.tune.result.judge import Judged, Verdict, front_of, slower_and_worse
from nas.tune.search.limits import Limits, resolve_limits
from nas.tune.timing.turns import TimedFile
from supernet.tasks.metric import KL

ORIGINAL = {"latency": 10.0, "size": 100.0}


def judged(name: str, kl: float, latency_s: float, size: float) -> Judged:
    quality = PolicyQuality({"kl": kl}, {}, size)
    time = TimedFile(MeasuredLatency(latency_s, 0.0, latency_s / 10, 0.0, (latency_s,), 1.0, 0.0))
    return Judged(name, time, quality, quality, size)


REFERENCES = (judged("fp32", 0.0, 10.0, 100.0), judged("recipe", 0.1, 6.0, 30.0))
FILES = (
    judged("good", 0.01, 5.0, 40.0),
    judged("beaten", 0.2, 7.0, 20.0),  # slower and worse than the recipe
    judged("nothing", 3.0, 4.0, 10.0),  # fast and small, with answers worse than all
    judged("small", 0.05, 6.0, 20.0),
    judged("as good", 0.02, 4.99, 40.0),  # worse, for a time that measuring again may give
)


def names(limits: Limits) -> list[str]:
    verdict = Verdict(np.zeros((len(FILES), 1), np.int16), FILES, REFERENCES)
    return [FILES[i].name for i in front_of(verdict, KL, limits)]


def test_nothing_is_worse_than_the_references() -> None:
    assert names(resolve_limits({}, [KL], ORIGINAL)) == ["good", "small"]


def test_a_limit_on_size_that_no_reference_meets_lets_worse_answers_in() -> None:
    assert names(resolve_limits({"size": "15B"}, [KL], ORIGINAL)) == ["nothing"]


@pytest.mark.parametrize("limit", ["1B", "9B"])
def test_what_cannot_be_met_says_what_is_nearest(limit: str) -> None:
    with pytest.raises(TrilobitError, match="nearest"):
        names(resolve_limits({"size": limit}, [KL], ORIGINAL))


@given(
    points=arrays(np.float64, (5, 3), elements=st.floats(0.1, 10)),
    others=arrays(np.float64, (2, 3), elements=st.floats(0.1, 10)),
    margin=st.sampled_from([0.0, 0.01, 0.5]),
)
def test_slower_and_worse_is_what_it_says(
    points: NDArray[np.float64], others: NDArray[np.float64], margin: float
) -> None:
    expected = [
        any(kl > other[0] and latency > other[1] * (1 + margin) for other in others)
        for kl, latency, _ in points
    ]
    assert slower_and_worse(points, others, margin=margin).tolist() == expected

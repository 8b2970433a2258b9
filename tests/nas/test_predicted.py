"""What a search goes by: errors, limits met with a confidence, and searches near the limits only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.latency_model import Calibration
from nas.problem.costs import Costs
from nas.problem.predicted import FOCUS, Predicted, check_confidence, distilled_predictor
from nas.problem.scenarios import Timing
from nas.problem.targets import Targets
from nas.run.config import SearchSection
from nas.search.objectives import objective
from predictors.predictor import Prediction
from supernet.space.space import Choice, Genomes, SearchSpace

ERROR = 0.1  # of predicted latency, relative


class Known(Costs):
    """Latency is the first gene in ms, and size the second in bytes; 9 ms cannot run."""

    def __init__(self) -> None:
        object.__setattr__(self, "timings", {"latency": Timing({}, Calibration())})
        object.__setattr__(self, "batch", 1)

    def predict(self, genomes: Genomes) -> dict[str, NDArray[np.float64]]:
        latency = np.where(genomes[:, 0] == 9, np.inf, genomes[:, 0] * 1e-3)
        return {"latency": latency, "size": genomes[:, 1].astype(np.float64)}

    def std(self, values: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        return {"latency": np.where(np.isfinite(values["latency"]), values["latency"], 0.0) * ERROR}


@dataclass(frozen=True)
class Certain:
    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> "Certain":
        return self

    def predict(self, genomes: Genomes) -> Prediction:
        return Prediction(np.full(len(genomes), 1.2), np.full(len(genomes), 0.02))


TARGETS = Targets((objective("accuracy"), objective("latency", 4.5e-3)), (objective("size", 7.0),))
PREDICTED = Predicted(Known(), Certain(), TARGETS)
GENOMES = np.array([[4, 1], [5, 1], [4, 8], [9, 1]], np.int16)


def test_objectives_come_with_the_errors_of_predictor_and_profile() -> None:
    posterior = PREDICTED(GENOMES)
    np.testing.assert_allclose(posterior.mean[:3], [[-1, 4e-3], [-1, 5e-3], [-1, 4e-3]])
    np.testing.assert_allclose(posterior.std[:3], [[0.02, 4e-4], [0.02, 5e-4], [0.02, 4e-4]])
    assert (posterior.violation == 0).tolist() == [True, False, False, False]


def test_a_confident_limit_leaves_a_margin() -> None:
    confident = replace(PREDICTED, confidence=0.95)  # 4 ms + 1.645 * 0.4 ms is above 4.5 ms
    assert (confident(GENOMES).violation == 0).tolist() == [False, False, False, False]
    assert (replace(PREDICTED, confidence=0.85)(GENOMES).violation == 0).tolist()[0]
    assert (confident(np.array([[3, 1]], np.int16)).violation == 0).all()


def test_excess_says_what_repair_has_to_mend() -> None:
    excess = PREDICTED.excess(GENOMES)
    np.testing.assert_array_equal((excess > 0).any(axis=1), PREDICTED(GENOMES).violation > 0)
    assert np.isinf(excess[3]).any()
    accuracy = Targets((objective("accuracy", 0.5),), ())
    assert not replace(PREDICTED, targets=accuracy).repairable
    assert PREDICTED.repairable


def test_a_focused_search_gains_nothing_far_below_a_limit() -> None:
    near, far, farther = (np.array([[g, 1]], np.int16) for g in (4, 3, 1))
    limited = Targets((objective("accuracy"), objective("latency", 4.2e-3)), ())
    focused = replace(PREDICTED, targets=limited, focused=True)
    assert focused(near).mean[0, 1] == 4e-3
    assert focused(far).mean[0, 1] == focused(farther).mean[0, 1] == pytest.approx(4.2e-3 * FOCUS)
    assert PREDICTED(farther).mean[0, 1] == 1e-3


@pytest.mark.parametrize("confidence", [0.4, 1.0])
def test_confidences_that_mean_nothing_are_refused(confidence: float) -> None:
    with pytest.raises(TrilobitError, match="latency_confidence must be a number at least"):
        SearchSection(latency_confidence=confidence)


def test_a_confidence_needs_a_limit_and_a_known_error() -> None:
    check_confidence(Known(), Targets((), ()), 0.5)
    with pytest.raises(TrilobitError, match="no limit on latency; add one"):
        check_confidence(Known(), Targets((), ()), 0.9)
    with pytest.raises(TrilobitError, match="does not know its error"):
        check_confidence(Known(), TARGETS, 0.9)


def test_only_many_candidates_are_worth_a_distilled_predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SearchSpace("two", (Choice("a", tuple(range(10))), Choice("b", tuple(range(10)))))
    made: list[int] = []

    def distil(*_: object, **__: object) -> None:
        made.append(1)

    monkeypatch.setattr("nas.problem.predicted.distil", distil)
    for candidates in (1_000, 40_000):
        distilled_predictor(space, Certain(), GENOMES, candidates, rng=np.random.default_rng(0))
    assert len(made) == 1


def test_candidates_are_asked_of_the_distilled_one() -> None:
    @dataclass(frozen=True)
    class Half(Certain):
        def predict(self, genomes: Genomes) -> Prediction:
            return Prediction(np.full(len(genomes), 0.5), np.full(len(genomes), 0.02))

    posterior = replace(PREDICTED, distilled=Half())(GENOMES)  # type: ignore[arg-type]
    np.testing.assert_allclose(posterior.mean[:, 0], -0.5)

"""What is believed of networks before they are measured, and how sure: what a search goes by."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hw_profiles.errors import TrilobitError
from nas.problem.costs import Costs
from nas.problem.targets import Targets, is_feasible_on_device, possible, predict_values
from nas.search.algorithms.expensive import Posterior
from nas.search.objectives import Values
from predictors.accuracy.distilled import LEARNED, Distilled, distil
from predictors.predictor import Predictor
from supernet.space.space import Genomes, SearchSpace

FOCUS = 0.9  # of a limit, below which less is no longer better in a focused search


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of one round of a search.

    Attributes:
        costs: of the space on the device.
        predictor: of the main metric of the task.
        targets: objectives and limits.
        confidence: with which a network must be within the limit on latency; 0.5 takes it as predicted.
        focused: whether a limited cost counts as equal everywhere below `FOCUS` of its limit, so that the
            search spends itself on what is near the limits instead of on the whole front.
        distilled: what is asked in the predictor's place, where that is asked of many networks.
    """

    costs: Costs
    predictor: Predictor
    targets: Targets
    confidence: float = 0.5
    focused: bool = False
    distilled: Distilled | None = None

    def __call__(self, genomes: Genomes) -> Posterior:
        """Return the posterior of genomes (n, g)."""
        values = predict_values(self.costs, None, genomes)
        accuracy = (self.distilled or self.predictor).predict(genomes)
        metric = self.targets.metric
        values[metric.name] = possible(metric, accuracy.mean)
        errors = {metric.name: accuracy.std, **self.costs.std(values)}
        std = [errors.get(o.name, np.zeros(len(genomes))) for o in self.targets.objectives]
        violation = self.targets.violation(self._cautious(values))
        return Posterior(self.focus(self.targets.minimised(values)), np.stack(std, axis=1), violation)

    def focus(self, minimised: Values) -> Values:
        """Return the objectives (n, m), where the search is focused with those at 0.9 of a limit or less
        made equal.
        """
        floors = [
            o.bound * FOCUS if self.focused and o.bound is not None and o.direction == "min" else -np.inf
            for o in self.targets.objectives
        ]
        return np.maximum(minimised, floors)

    def excess(self, genomes: Genomes) -> Values:
        """Return (n, k) by how much each limit on a cost is exceeded, relative; infinite where the device
        cannot run a network. Accuracy is no cost.
        """
        values = self._cautious(self.costs.predict(genomes))
        runs = is_feasible_on_device(values)
        limited = [o for o in self.targets.bounded if o.origin != "metric"]
        return np.stack([np.where(runs, o.excess(values[o.name]), np.inf) for o in limited], axis=1)

    @property
    def repairable(self) -> bool:
        """Whether there is a limit on a cost, so that `excess` has something to say."""
        return any(o.origin != "metric" for o in self.targets.bounded)

    def _cautious(self, values: dict[str, Values]) -> dict[str, Values]:
        """Return the values with the times that are not exceeded with the wanted confidence, in place of the
        expected ones.
        """
        return self.costs.cautious(values, NormalDist().inv_cdf(self.confidence))


def distilled_predictor(
    space: SearchSpace, predictor: Predictor, sampled: Genomes, candidates: int, *, rng: np.random.Generator
) -> Distilled | None:
    """Return a distilled copy of the predictor that learned from `sampled` (k, g); None
    where asking it about so many candidates is no more work than making the copy.
    """
    if candidates < 2 * LEARNED:
        return None
    return distil(space, predictor, sampled, rng=rng)


def check_confidence(costs: Costs, targets: Targets, confidence: float) -> None:
    """Check that a confidence in the limit on latency can mean anything.

    Raises:
        TrilobitError: latency has no limit, or the profile does not know its own error.
    """
    if confidence == 0.5:
        return
    if not any(o.name in costs.timed for o in targets.bounded):
        raise TrilobitError(
            f"latency confidence {confidence:g}: there is no limit on latency; add one, such as "
            "--max-latency 60%"
        )
    if "mape" not in costs.calibration.held_out_error():
        raise TrilobitError(
            f"latency confidence {confidence:g}: the profile does not know its error; `nas profile` measures "
            "it on whole networks, where the device can run them"
        )

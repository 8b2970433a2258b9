"""Evaluations on the supernet, which a predictor learns from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from hw_profiles.streams import Stream, open_stream
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import open_study, supernet_identity
from nas.evaluation.sharing import Study
from nas.evaluation.store import EvaluationStore, Result
from supernet.space.space import Candidate
from supernet.tasks.evaluate import simulated_metric
from supernet.tasks.task import Examples


@dataclass(frozen=True)
class SupernetEvaluator:
    """Evaluates networks with inherited weights, in simulation."""

    builder: NetworkBuilder

    def sample(self, candidates: Sequence[Candidate]) -> Iterator[float]:
        """Yield the main metric on search-validation in simulation, one after the other; known ones cost
        nothing.
        """
        return (values[self.builder.metric] for values, _ in self.sampling.results(candidates))

    @property
    def samples(self) -> EvaluationStore:
        """Main metrics on the supernet, for the predictor to learn from."""
        return self.sampling.store

    @cached_property
    def sampling(self) -> Study:
        """How samples are evaluated."""
        images = self.builder.run.config.sample.images
        study = f"supernet-{self.builder.run.rounded_fingerprint}" + (f"-drawn-{images}" if images else "")
        return open_study(
            self.builder.run,
            study,
            [self.builder.metric],
            self._simulate,
            group=1,
            identity=partial(supernet_identity, self.builder.run),
        )

    @cached_property
    def scoring(self) -> Examples:
        """The examples of search-validation that samples are scored on, the same for all: those that
        `sample.images` says, drawn, since data comes sorted by class.
        """
        everything, config = self.builder.run.task.validation, self.builder.run.config
        if not config.sample.images:
            return everything
        order = open_stream(config.seed, Stream.SCORED_IMAGES).permutation(len(everything))
        return everything[np.sort(order[: config.sample.images])]

    def _simulate(self, candidates: Sequence[Candidate]) -> Iterator[Result]:
        for candidate in candidates:
            value = simulated_metric(self.builder.network(candidate), self.scoring, self.builder.run.task)
            yield {self.builder.metric: value}, {"source": "supernet"}

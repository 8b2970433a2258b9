"""Evaluations on the supernet, which a predictor learns from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from hw_profiles.streams import Stream, open_stream
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import open_study, supernet_identity
from nas.evaluation.reference import RunReference, opened, reference_to
from nas.evaluation.store import EvaluationStore, Result
from nas.evaluation.study import Study
from supernet.space.space import Candidate
from supernet.tasks.evaluate import simulated_metric
from supernet.tasks.task import Examples


@dataclass(frozen=True)
class SupernetEvaluator:
    """Evaluates networks with inherited weights, in simulation."""

    builder: NetworkBuilder

    def sample(
        self,
        candidates: Sequence[Candidate],
        on_found: Callable[[int, float], None] = lambda done, value: None,
    ) -> Iterator[float]:
        """Yield the main metric on search-validation in simulation, one after the other; known ones cost
        nothing.

        Args:
            on_found: told how many are there, and the last of them: by a cluster in any order.
        """
        metric = self.builder.metric
        results = self.sampling.results(candidates, lambda done, result: on_found(done, result[0][metric]))
        return (values[metric] for values, _ in results)

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
            self._evaluate,
            group=1,
            cluster=self.builder.run.cluster,
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

    def simulate(self, candidate: Candidate) -> Result:
        """Return the main metric of a candidate on search-validation, in simulation, in this process."""
        value = simulated_metric(self.builder.network(candidate), self.scoring, self.builder.run.task)
        return {self.builder.metric: value}, {"source": "supernet"}

    def _evaluate(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        run = self.builder.run
        if run.cluster is None:
            for candidate in candidates:
                yield candidate, self.simulate(candidate)
            return
        simulate = partial(simulate_there, reference_to(run, "supernet"))
        for i, result in run.cluster.answers(simulate, [candidate.genes for candidate in candidates]):
            yield candidates[i], result


def simulate_there(reference: RunReference, genes: tuple[int, ...]) -> Result:
    """Simulate a candidate on a worker of a cluster."""
    with opened(reference) as builder:
        candidate = builder.run.family.space().candidate(np.array(genes, np.int16))
        return SupernetEvaluator(builder).simulate(candidate)

"""What every part of one tune shares: the calibrated model, the examples, and what was measured so far."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hw_profiles.streams import Stream, open_stream
from nas.evaluation.store import EvaluationStore
from nas.tune.evaluation.answers import Runner, runner_for
from nas.tune.evaluation.quality import (
    Comparison,
    Find,
    PolicyQuality,
    QualityStore,
    divergence_of,
    proxy_of,
    store_objectives,
)
from nas.tune.policies.costs import TunedCosts
from nas.tune.policies.rounded_tensors import RoundedTensors
from nas.tune.policies.space import policy_of
from nas.tune.setup.files import PolicyFiles
from nas.tune.setup.times import PolicyClock
from nas.tune.setup.tuning import Tuning
from supernet.data.samples import Samples
from supernet.ptq.quantization import Quantization
from supernet.ptq.quantization_file import load_quantization
from supernet.space.space import Genomes, SearchSpace
from supernet.tasks.error_vectors import error_vectors
from supernet.tasks.fidelity import Fidelity, fidelity_of
from supernet.tasks.metric import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TuneContext:
    """What every part of one tune shares.

    Attributes:
        find: evaluates policies, see `QualityStore`; None evaluates them in this process, in order.
    """

    tuning: Tuning
    find: Find | None = None

    @cached_property
    def quantization(self) -> Quantization:
        """Of the model, calibrated."""
        return load_quantization(self.tuning.quantization_path, self.tuning.model)

    @property
    def costs(self) -> TunedCosts:
        """What quality is weighed against."""
        return self.tuning.costs

    @property
    def space(self) -> SearchSpace:
        """All policies."""
        return self.tuning.space

    @cached_property
    def runner(self) -> Runner:
        """How files are run."""
        return runner_for(self.tuning.runtime, self.tuning.original, self.tuning.parts.choosing)

    @cached_property
    def fidelity(self) -> Fidelity:
        """How answers are compared."""
        choosing = self.tuning.parts.choosing
        section = self.tuning.config.tune
        return fidelity_of(
            self.runner(self.tuning.original, choosing),
            choosing,
            roles=section.roles,
            metric=section.metric,
            direction=section.direction,
        )

    @property
    def proxy(self) -> Metric:
        """The smooth metric that is predicted."""
        return proxy_of(self.fidelity)

    def compared_on(self, samples: Samples) -> Comparison:
        """Return the comparison with the original on some examples."""
        return Comparison(
            self.quantization,
            self.space,
            self.fidelity,
            self.runner,
            samples,
            self.runner(self.tuning.original, samples),
            self.tuning.write,
            count=self.tuning.count,
        )

    @cached_property
    def comparison(self) -> Comparison:
        """The comparison with the original on what policies are compared on."""
        comparison = self.compared_on(self.tuning.parts.choosing)
        rng = open_stream(self.tuning.config.seed, Stream.TUNE_ERRORS)
        return replace(comparison, vectors=error_vectors(self.fidelity.outputs, comparison.original, rng=rng))

    @cached_property
    def choosing(self) -> QualityStore:
        """Policies evaluated on what they are compared on."""
        name = f"choosing-{self.tuning.fingerprint('sample')}"
        objectives = store_objectives(self.fidelity)
        return QualityStore(
            self.comparison,
            EvaluationStore(self.tuning.storage_url, name, self.space, objectives, decisions=False),
            self.find or self._find_here,
        )

    def _find_here(self, genomes: Genomes) -> Iterator[tuple[int, PolicyQuality]]:
        for i, genome in enumerate(genomes):
            yield i, self.comparison.of_policy(policy_of(self.space, genome))

    @cached_property
    def files(self) -> PolicyFiles:
        """Of the policies."""
        return PolicyFiles(self.tuning, self.quantization)

    @cached_property
    def clock(self) -> PolicyClock:
        """Times policies."""
        return PolicyClock(self.files)

    @cached_property
    def tensors(self) -> RoundedTensors:
        """Which tensors policies have in codes."""
        return RoundedTensors(self.files.terms)

    def evaluate(
        self, genomes: Genomes, on_done: Callable[[int], None] = lambda done: None
    ) -> list[PolicyQuality]:
        """Return what policies (n, g) are like on the examples that policies are compared on."""
        return list(self.choosing.evaluate(genomes, on_done))

    def divergences(self, qualities: list[PolicyQuality]) -> Floats:
        """Return (n,) how far policies are from the original; NaN where the file fails."""
        values = np.array([quality.metrics.get(self.proxy.name, np.nan) for quality in qualities])
        return divergence_of(self.proxy, values)

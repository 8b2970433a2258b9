"""How good policies are: their files run on examples, compared with the original, and never run twice."""

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from nas.emit.rewrite_onnx import rewrite
from nas.evaluation.store import EvaluationStore, Result
from nas.evaluation.study import Study
from nas.run.tuned_document import MetricValue, PartQuality
from nas.search.objectives import Objective, of_metric
from nas.tune.evaluation.answers import Outputs, Runner
from nas.tune.setup.libraries import Write
from supernet.data.samples import Samples
from supernet.ptq.quantization import Policy, Quantization
from supernet.space.space import Candidate, Genomes, SearchSpace
from supernet.tasks.error_vectors import ErrorVectors
from supernet.tasks.fidelity import Fidelity
from supernet.tasks.metric import Metric, smooth_metric

Floats = NDArray[np.float64]
LARGEST = 1e9  # that a metric is kept as: files hold finite numbers only
FLOOR = 1e-9  # of divergences: below it they are rounding
SIZE, DIVERGENCE = "size", "divergence"
STORED = np.dtype("<f2")  # of an error, over its largest number
DYNAMIC = ("int8-dynamic",)


@dataclass(frozen=True)
class PolicyQuality:
    """What is known of one policy on the examples that policies are compared on.

    Attributes:
        metrics: by name.
        errors: standard errors of those that are means over examples.
        size_bytes: of its file.
        failed: why its file gives no numbers; empty where it does.
        error: (k,) of its answers, as a vector; None where that is not known.
        memory: bytes that its file needs on a microcontroller, by name of the cost; empty where nobody asks.
    """

    metrics: Mapping[str, float]
    errors: Mapping[str, float]
    size_bytes: float
    failed: str = ""
    error: NDArray[np.float32] | None = None
    memory: Mapping[str, float] = field(default_factory=dict)

    @property
    def costs(self) -> dict[str, float]:
        """What is counted of its file, by name of the cost."""
        return {SIZE: self.size_bytes, **self.memory}

    def part(self, samples: int) -> PartQuality:
        """Return it as the front holds it."""
        values = {name: MetricValue(value, self.errors.get(name)) for name, value in self.metrics.items()}
        return PartQuality(samples, values)


Count = Callable[[bytes], Mapping[str, float]]  # of a file: bytes by name of the cost
Find = Callable[[Genomes], Iterator[tuple[int, PolicyQuality]]]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Examples, and what the original says of them.

    Attributes:
        quantization: of the model.
        space: of its policies.
        fidelity: how answers are compared.
        run: what a file says.
        samples: the examples.
        original: what the original says of them.
        write: writes the file of a policy.
        vectors: what makes a vector of an error; None where that is not asked for, or cannot be.
        count: what a file needs on a microcontroller; None where nobody asks.
    """

    quantization: Quantization
    space: SearchSpace
    fidelity: Fidelity
    run: Runner
    samples: Samples
    original: Outputs
    write: Write = rewrite
    vectors: ErrorVectors | None = None
    count: Count | None = None

    def of_policy(self, policy: Policy) -> PolicyQuality:
        """Return what a policy's file is like; one that fails says why."""
        content = self.write(self.quantization, policy)
        alone = any("dynamic" in name for name in policy.values())
        return self.of_file(content, alone=alone)

    def of_file(self, content: bytes, *, alone: bool = False) -> PolicyQuality:
        """Return what a file is like, whatever made it; one that fails says why."""
        quality = self._answers(content, alone=alone)
        return quality if self.count is None else replace(quality, memory=self.count(content))

    def _answers(self, content: bytes, *, alone: bool) -> PolicyQuality:
        try:
            outputs = self.run(content, self.samples, alone=alone)
        except TrilobitError as error:
            return PolicyQuality({}, {}, float(len(content)), str(error))
        return self.of_outputs(outputs, float(len(content)))

    def of_outputs(self, outputs: Outputs, size_bytes: float) -> PolicyQuality:
        """Return how good answers are."""
        metrics, errors = self.fidelity.assess(outputs, self.samples, self.original)
        known = {name: _finite(error) for name, error in errors.items() if name in metrics}
        values = {name: _finite(value) for name, value in metrics.items()}
        error = None if self.vectors is None else self.vectors(outputs)
        return PolicyQuality(values, known, size_bytes, error=error)


@dataclass(frozen=True, eq=False)
class QualityStore:
    """Policies that were evaluated; what is known is not evaluated again.

    Attributes:
        comparison: what they are evaluated by.
        store: keeps the results.
        find: policies (n, g) -> what each is like, with its position, in any order.
    """

    comparison: Comparison
    store: EvaluationStore
    find: Find

    def known(self, genome: Genomes) -> PolicyQuality | None:
        """Return what was found of a policy (g,); None where it was not evaluated."""
        stored = self.store.get(self.comparison.space.candidate(genome))
        return None if stored is None else _read(*stored)

    def evaluate(
        self, genomes: Genomes, on_done: Callable[[int], None] = lambda done: None
    ) -> Iterator[PolicyQuality]:
        """Yield what each policy (n, g) is like, in order.

        Args:
            on_done: told how many are there: by a cluster in any order.
        """
        study = Study("policies", lambda: self.store, self._evaluate, None)
        candidates = [self.comparison.space.candidate(genome) for genome in genomes]
        return (_read(*result) for result in study.results(candidates, lambda done, _: on_done(done)))

    def _evaluate(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        genomes = np.array([candidate.genes for candidate in candidates], np.int16)
        for i, quality in self.find(genomes):
            metrics = self.comparison.fidelity.metrics
            values = {m.name: quality.metrics.get(m.name, worst(m)) for m in metrics}
            attributes = {"errors": dict(quality.errors), "failed": quality.failed, **_packed(quality.error)}
            attributes |= {"memory": dict(quality.memory)} if quality.memory else {}
            yield candidates[i], ({**values, SIZE: quality.size_bytes}, attributes)

    @cached_property
    def proxy(self) -> Metric:
        """The smooth metric that is predicted."""
        return proxy_of(self.comparison.fidelity)


def _read(values: Mapping[str, float], attributes: Mapping[str, Any]) -> PolicyQuality:
    metrics = {name: value for name, value in values.items() if name != SIZE}
    failed, errors = str(attributes.get("failed", "")), dict(attributes.get("errors", {}))
    memory = dict(attributes.get("memory", {}))
    return PolicyQuality(
        {} if failed else metrics, errors, values[SIZE], failed, _unpacked(attributes), memory
    )


def _packed(error: NDArray[np.float32] | None) -> dict[str, Any]:
    """Return a vector as text, for a storage of texts: numbers of 16 bits, and the largest."""
    if error is None:
        return {}
    largest = float(np.abs(error).max(initial=0))
    numbers = (error / (largest or 1.0)).astype(STORED)
    return {"error": base64.b85encode(numbers.tobytes()).decode(), "error_largest": largest}


def _unpacked(attributes: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Return a vector that was stored; None where none was, or another program wrote something else."""
    try:
        numbers = np.frombuffer(base64.b85decode(attributes["error"]), STORED)
        return numbers.astype(np.float32) * np.float32(attributes["error_largest"])
    except (KeyError, TypeError, ValueError):
        return None


def store_objectives(fidelity: Fidelity) -> tuple[Objective, ...]:
    """Return what is kept of every policy."""
    return (*map(of_metric, fidelity.metrics), Objective(SIZE, "bytes", "min", origin="device"))


def proxy_of(fidelity: Fidelity) -> Metric:
    """Return the metric that is predicted."""
    return smooth_metric(fidelity.metrics)


def divergence_of(metric: Metric, values: Floats) -> Floats:
    """Return (n,) values of a metric as what is 0 for the original and additive for small errors: a
    divergence as it is, a ratio in dB as noise over signal, a share as what is missing to 1.

    >>> from supernet.tasks.metric import SNR
    >>> divergence_of(SNR, np.array([20.0, 40.0])).round(6).tolist()
    [0.01, 0.0001]
    """
    if metric.unit == "dB":
        return np.maximum(10.0 ** (-values / 10), FLOOR)
    if metric.direction == "max":
        return np.maximum(1.0 - values if metric.unit == "fraction" else -values, FLOOR)
    return np.maximum(values, FLOOR)


def worst(metric: Metric) -> float:
    """Return the value of what gives no numbers."""
    return -LARGEST if metric.direction == "max" else LARGEST


def _finite(value: float) -> float:
    return LARGEST if math.isnan(value) else float(np.clip(value, -LARGEST, LARGEST))

"""Policies of small imported networks, and a device on which a policy's time is a sum of secret terms."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.runtime import Artifact
from predictors.latency.policies import PolicyLatency
from predictors.latency.policy_priors import prior_of_work
from predictors.latency.policy_terms import IN_INTEGERS, Kernel, PolicyTerms
from supernet.imported.import_onnx import import_onnx
from supernet.imported.model import ImportedModel
from supernet.space.space import Choice, Genomes, SearchSpace
from tests.nas.emit.small_networks import attention, conv_net

FORMATS = ("int8", "int4", "int4-g32")  # the first two on the same kernels
ORIGINAL_S = 5e-3


def kernel_of(unit: str, name: str) -> Kernel:
    return Kernel(name) if name == "int4-g32" else IN_INTEGERS


@cache
def network(name: str) -> ImportedModel:
    if name == "conv":
        return import_onnx(conv_net(), shapes={"image": (1, 3, 16, 16)})
    return import_onnx(attention(), shapes={"tokens": (1, 7, 32), "positions": (1, 7, 32)})


def terms_of(model: ImportedModel, formats: Sequence[str] = FORMATS, units: int = 1000) -> PolicyTerms:
    """The terms of a space in which the first weighted units have alternatives."""
    choosable = [unit for unit in model.units if unit.weighted][:units]
    choices = (Choice(unit.name, ("fp32", *formats), "precision", role="format") for unit in choosable)
    return PolicyTerms.of(SearchSpace("policies", tuple(choices)), model, kernel_of)


@dataclass(frozen=True, eq=False)
class SecretTimes:
    """Times that are sums of terms, and measured with noise.

    Attributes:
        noise: standard deviation, relative.
    """

    terms: PolicyTerms
    seconds: np.ndarray
    noise: float = 0.003

    @classmethod
    def of(cls, terms: PolicyTerms, rng: np.random.Generator, off: float = 0.5) -> "SecretTimes":
        """Terms that differ from what is expected of them by factors."""
        expected = prior_of_work(terms, ORIGINAL_S).mean_s
        return cls(terms, expected * np.exp(off * rng.standard_normal(len(expected))))

    def true_s(self, genomes: Genomes) -> np.ndarray:
        return ORIGINAL_S + self.terms(genomes).astype(np.float64) @ self.seconds

    def measured_s(self, genomes: Genomes, rng: np.random.Generator) -> np.ndarray:
        return self.true_s(genomes) * np.exp(self.noise * rng.standard_normal(len(genomes)))

    def predictor(self) -> PolicyLatency:
        return PolicyLatency(self.terms, prior_of_work(self.terms, ORIGINAL_S))


def artifact_of(genome: Genomes) -> Artifact:
    """A file that is only its genes."""
    return Artifact(genome.astype(np.int16).tobytes())


class Engine:
    """A runtime that opens such files."""

    def compile(self, artifact: Artifact) -> "Engine":
        return self

    def timed(self, clock: str, **options: Any) -> Any:
        return lambda count: count * ORIGINAL_S


@dataclass
class SecretTransport:
    """Measures secret times; others slow some calls down.

    Attributes:
        slowdowns: of each call, in turns.
        broken: genes that no engine runs.
        calls: how many files each call had.
    """

    secret: SecretTimes
    rng: np.random.Generator
    slowdowns: Sequence[float] = (1.0,)
    broken: tuple[int, ...] | None = None
    calls: list[int] = field(default_factory=list)

    @property
    def parallel(self) -> int:
        return 1

    def located(self, info: Any) -> Any:
        return info

    def sample(
        self,
        runtime: Any,
        artifacts: Sequence[Artifact],
        contexts: Sequence[Hashable | None],
        plan: MeasurePlan,
    ) -> list[Measurement]:
        slow = self.slowdowns[len(self.calls) % len(self.slowdowns)]
        self.calls.append(len(artifacts))
        return [self._measured(artifact, slow, plan) for artifact in artifacts]

    def _measured(self, artifact: Artifact, slow: float, plan: MeasurePlan) -> Measurement:
        genome = np.frombuffer(artifact.content, np.int16)
        if self.broken == tuple(genome.tolist()):
            return Measurement(error="no kernel")
        quiet = replace(self.secret, noise=0.0).true_s(genome[None])[0] * slow
        windows = quiet * np.exp(np.abs(self.secret.noise * self.rng.standard_normal(plan.rounds)))
        return Measurement(tuple(windows.tolist()), load=1.0)

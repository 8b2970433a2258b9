"""`PolicyLatency`: the time of a network in any policy, from a few measured ones.

T(policy) = T0 + sum of the terms that the policy has (`predictors.latency.policy_terms`). What terms are
expected to be comes from a prior (`predictors.latency.policy_priors`); measured policies correct it: each
term's own error and one factor common to all of a kind, as large as the measurements make likely.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from predictors.assessment.conformal import calibrate
from predictors.latency.components import (
    CONSTANT,
    Process,
    Variances,
    distrust_outliers,
    fit_process,
)
from predictors.latency.policy_priors import Prior
from predictors.latency.policy_terms import PolicyTerms
from predictors.linalg import Floats
from predictors.predictor import Prediction, not_fitted
from predictors.table import CHUNK
from supernet.space.space import Genomes

NOISE = 0.01  # of a policy's time: what is neither a term nor known better, until it is learned
FLOOR = 1e-3  # of the mean time: no prediction is believed more closely
Present = NDArray[np.float32]  # (n, d) which terms policies have


@dataclass(frozen=True, eq=False)
class Targets:
    """Measured policies as a process sees them: what the prior does not explain.

    Attributes:
        genomes: (n, g).
        seconds: (n,).
        grams: (4, n, n) the prior's covariance between them, in each part.
        standard: (n,) standardised.
        offset_s, unit_s: mean and scale of what was standardised.
    """

    genomes: Genomes
    seconds: Floats
    grams: Floats
    standard: Floats
    offset_s: float
    unit_s: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `PolicyLatency.fit` learns.

    Attributes:
        targets: it was fitted to.
        process: of the standardised targets.
        std_scale: factor from the process's standard deviation to that of the error.
    """

    targets: Targets
    process: Process
    std_scale: float


@dataclass(frozen=True, eq=False)
class PolicyLatency:
    """Posterior mean and standard deviation of policies' times, noise of a new measurement included. See
    `predictors.predictor.Predictor`.

    Attributes:
        terms: of the model's policies.
        prior: what they are expected to be.
        fitted: None until `fit`.
    """

    terms: PolicyTerms
    prior: Prior
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        """Fit to measured policies (n, g) and their seconds (n,), afresh. A single one is enough: the prior
        says the rest.

        Raises:
            TrilobitError: there are none, or a time is not a finite number.
        """
        if not len(targets) or not np.isfinite(targets).all():
            raise TrilobitError(f"{len(targets)} measured policies; wanted some, each with a finite time")
        standard = self._standardised(genomes, targets)
        noise = (NOISE * float(targets.mean()) / standard.unit_s) ** 2
        expected = Variances(np.array([*self.prior.own, *self.prior.common]) ** 2, noise)
        process = fit_process(standard.grams, standard.standard, expected, np.ones(len(targets)))
        process = distrust_outliers(process, standard.grams, standard.standard, expected)
        return replace(self, fitted=Fitted(standard, process, calibrate(*process.leave_one_out())))

    def predict(self, genomes: Genomes) -> Prediction:
        """Return mean and standard deviation (n,) of the seconds of policies (n, g).

        Raises:
            TrilobitError: not fitted.
        """
        mean, std = np.empty(len(genomes)), np.empty(len(genomes))
        for start in range(0, len(genomes), CHUNK):
            rows = slice(start, start + CHUNK)
            present = self.terms(genomes[rows])
            mean[rows], std[rows] = self._mean_s(present), self._std_s(present)
        return Prediction(mean, std)

    def seconds(self, genomes: Genomes) -> Floats:
        """Return the mean (n,) alone, which is what a search asks for most.

        Raises:
            TrilobitError: not fitted.
        """
        starts = range(0, len(genomes), CHUNK)
        parts = [self._mean_s(self.terms(genomes[start : start + CHUNK])) for start in starts]
        return np.concatenate([np.empty(0), *parts])

    # -- the prior -----------------------------------------------------------------------------------

    @cached_property
    def _kinds(self) -> tuple[Floats, Floats]:
        """(d,) 1 where a term is of a unit, and where it is a conversion."""
        converts = np.array([term.converts for term in self.terms.terms], np.float64)
        return 1 - converts, converts

    def _standardised(self, genomes: Genomes, seconds: Floats) -> Targets:
        present = self.terms(genomes).astype(np.float64)
        missed_s = seconds - present @ self.prior.mean_s
        offset_s, unit_s = float(missed_s.mean()), float(seconds.std()) or FLOOR * float(seconds.mean())
        own = [(present * (self.prior.scale_s * kind) ** 2) @ present.T for kind in self._kinds]
        common = [present @ (self.prior.mean_s * kind) for kind in self._kinds]
        grams = np.array([*own, *(np.outer(factor, factor) for factor in common)]) / unit_s**2
        return Targets(genomes, seconds, grams, (missed_s - offset_s) / unit_s, offset_s, unit_s)

    # -- what was learned ----------------------------------------------------------------------------

    @property
    def _fitted(self) -> Fitted:
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted

    @cached_property
    def _covariance(self) -> tuple[Floats, Floats]:
        """The expected covariance of terms: its diagonal (d,), and factors (d, 2) of what is common; of
        seconds in the unit of the targets.
        """
        sizes = np.sqrt(self._fitted.process.variances.parts) / self._fitted.targets.unit_s
        own = sum(
            (size * self.prior.scale_s * k) ** 2 for size, k in zip(sizes[:2], self._kinds, strict=True)
        )
        common = [size * self.prior.mean_s * k for size, k in zip(sizes[2:], self._kinds, strict=True)]
        return np.asarray(own), np.column_stack(common)

    @cached_property
    def _across(self) -> Floats:
        """(d, n) covariance of terms with measured policies, in the same unit."""
        diagonal, common = self._covariance
        measured = self.terms(self._fitted.targets.genomes).astype(np.float64)
        return np.asarray(diagonal[:, None] * measured.T + common @ (measured @ common).T)

    @cached_property
    def _learned(self) -> tuple[Floats, float]:
        """Seconds (d,) of each term, and those of the original."""
        targets, alpha = self._fitted.targets, self._fitted.process.alpha
        seconds = self.prior.mean_s + targets.unit_s * (self._across @ alpha)
        return seconds, targets.offset_s + targets.unit_s * CONSTANT * float(alpha.sum())

    def _mean_s(self, present: Present) -> Floats:
        seconds, original_s = self._learned
        return np.asarray(original_s + present @ seconds.astype(np.float32), np.float64)

    def _std_s(self, present: NDArray[np.floating]) -> Floats:
        fitted, (diagonal, common) = self._fitted, self._covariance
        present = present.astype(np.float64)  # what is left is a small difference of large numbers
        own = present @ diagonal + ((present @ common) ** 2).sum(axis=1) + CONSTANT
        shared = present @ self._across + CONSTANT  # covariance with what was measured
        variance = np.maximum(own - ((shared @ fitted.process.precision) * shared).sum(axis=1), 0.0)
        std = np.sqrt(variance + fitted.process.variances.noise)
        floor_s = FLOOR * float(fitted.targets.seconds.mean())
        return np.asarray(np.maximum(fitted.std_scale * fitted.targets.unit_s * std, floor_s))

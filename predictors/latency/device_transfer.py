"""Whole networks' latency on a new device, from a few measurements of it and full tables of other devices.

The new device's latency is taken for a weighted sum of the others' (a factor model; its singular vectors are
those of the others' additive predictors) plus a rest that the genes explain: the same Gaussian process as
without other devices, see `predictors.latency.networks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from predictors.features import Encoding, every
from predictors.latency.components import CONSTANT
from predictors.latency.networks import NOISE, TINY, LatencyPredictor, describe
from predictors.linalg import Floats
from supernet.space.space import Genomes, SearchSpace

PENALTY = 0.1  # of the others' additive predictors: their tables have far more rows than options
CONSIDERED = 600  # networks to choose from at a time: a random part of larger pools


@dataclass(frozen=True, eq=False)
class Sum:
    """A number for every device, as a sum over genes.

    Attributes:
        slopes: (f, d) of features.
        intercepts: (d,).
    """

    slopes: Floats
    intercepts: Floats

    def __call__(self, x: Floats) -> Floats:
        """Return (n, d) sums of features (n, f)."""
        return np.asarray(x @ self.slopes + self.intercepts)

    def of(self, devices: list[int]) -> "Sum":
        """Return the same for some devices."""
        return Sum(self.slopes[:, devices], self.intercepts[devices])


@dataclass(frozen=True, eq=False)
class AdditiveSources:
    """Other devices' latency as sums over genes: a lookup per network, also of networks not in the tables.

    Attributes:
        devices: (d,) their names.
        encoding: of genomes as f numbers.
        latency: standardised.
        log_latency: the same of its logarithm.
    """

    devices: tuple[str, ...]
    encoding: Encoding
    latency: Sum
    log_latency: Sum

    def __call__(self, genomes: Genomes) -> Floats:
        """Return standardised latency (n, d) of genomes (n, g); equal networks get equal rows."""
        return self.latency(self.encoding(genomes).astype(np.float64))

    def logs(self, genomes: Genomes) -> Floats:
        """Return standardised logarithms (n, d) of the latency of genomes (n, g)."""
        return self.log_latency(self.encoding(genomes).astype(np.float64))

    def without(self, devices: Sequence[str]) -> "AdditiveSources":
        """Return all but these devices."""
        kept = [i for i, name in enumerate(self.devices) if name not in devices]
        names = tuple(self.devices[i] for i in kept)
        return AdditiveSources(names, self.encoding, self.latency.of(kept), self.log_latency.of(kept))


def fit_sources(
    space: SearchSpace, genomes: Genomes, seconds: Floats, devices: Sequence[str]
) -> AdditiveSources:
    """Fit additive predictors of all devices, from one table of genomes (n, g) and seconds (n, d), in which
    NaN stands where a device was not measured.

    Raises:
        TrilobitError: not one name for each column, a device without any measurement, or a time that is not
            above 0.
    """
    if seconds.shape != (len(genomes), len(devices)):
        raise TrilobitError(
            f"{len(genomes)} networks, {len(devices)} devices and a table {seconds.shape}; "
            "wanted one row per network and one column per device"
        )
    measured = ~np.isnan(seconds)
    for column in np.flatnonzero(~measured.any(axis=0)).tolist():
        raise TrilobitError(f"{devices[column]}: no network was measured on it; leave the device out")
    for row, column in np.argwhere(measured & ~((seconds > 0) & np.isfinite(seconds))).tolist():
        raise TrilobitError(
            f"{devices[column]}: latency of row {row} is {seconds[row, column]}; wanted seconds above 0, or "
            "NaN where a network was not measured"
        )
    encoding = every(space)
    x = encoding(genomes).astype(np.float64)
    return AdditiveSources(tuple(devices), encoding, _sums(x, seconds), _sums(x, np.log(seconds)))


def _sums(x: Floats, targets: Floats) -> Sum:
    """Fit standardised targets (n, d), NaN where not known, by features (n, f); devices that know the same
    rows at once.
    """
    slopes, intercepts = np.zeros((x.shape[1], targets.shape[1])), np.zeros(targets.shape[1])
    patterns, pattern = np.unique(~np.isnan(targets), axis=1, return_inverse=True)
    for i, rows in enumerate(patterns.T):
        devices = np.flatnonzero(pattern.ravel() == i)
        some, y = x[rows], targets[np.ix_(rows, devices)]
        centre, spread = some.mean(axis=0), y.std(axis=0)
        some, y = some - centre, (y - y.mean(axis=0)) / np.maximum(spread, TINY * np.abs(y).max())
        slopes[:, devices] = np.linalg.solve(some.T @ some + PENALTY * np.eye(x.shape[1]), some.T @ y)
        intercepts[devices] = -centre @ slopes[:, devices]
    return Sum(slopes, intercepts)


def choose_networks(
    predictor: LatencyPredictor, pool: Genomes, n: int, *, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return (n,) rows of `pool` (p, g) that, once measured, leave the least variance in the pool on average.

    Greedy, and before anything was measured: what a Gaussian process is unsure of does not depend on the
    targets, only on the variances of its parts, which are as expected.

    Raises:
        TrilobitError: fewer networks than are to be chosen.
    """
    if len(pool) < n:
        raise TrilobitError(f"{n} networks to choose of {len(pool)}; give a larger pool")
    some = rng.permutation(len(pool))[: max(CONSIDERED, n)]
    description = describe(predictor.space, predictor.costs, predictor.sources, pool[some])
    x = description(pool[some])
    covariance = np.tensordot(description.expected, description.grams(x, x), 1) + CONSTANT
    rows: list[int] = []
    for _ in range(n):
        gain = (covariance**2).sum(axis=0) / (np.diag(covariance) + NOISE)
        gain[rows] = -1.0
        best = int(gain.argmax())
        rows.append(best)
        explained = covariance[:, best] / np.sqrt(covariance[best, best] + NOISE)
        covariance = covariance - np.outer(explained, explained)
    return some[rows]

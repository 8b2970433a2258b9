"""Whole networks' latency on a new device, from a few measurements of it and full tables of other devices.

The new device's latency is taken for a weighted sum of the others' (a factor model; its singular vectors are
those of the others' additive predictors) plus a rest that the genes explain: the same Gaussian process as
without other devices, see `predictors.latency`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from predictors.components import CONSTANT, Floats
from predictors.features import Encoding, every
from predictors.latency import NOISE, TINY, LatencyPredictor, describe
from supernet.space import Genomes, SearchSpace

PENALTY = 0.1  # of the others' additive predictors: their tables have far more rows than options
CONSIDERED = 600  # networks to choose from at a time: a random part of larger pools


@dataclass(frozen=True, eq=False)
class AdditiveSources:
    """Other devices' latency as sums over genes: a lookup per network, also of networks not in the tables.

    Attributes:
        devices: (d,) their names.
        encoding: of genomes as f numbers.
        slopes: (f, d) of standardised latency.
        intercepts: (d,) of the same.
    """

    devices: tuple[str, ...]
    encoding: Encoding
    slopes: Floats
    intercepts: Floats

    def __call__(self, genomes: Genomes) -> Floats:
        """(n, g) genomes -> (n, d) standardised latency; equal networks get equal rows."""
        return np.asarray(self.encoding(genomes) @ self.slopes + self.intercepts)

    def without(self, devices: Sequence[str]) -> "AdditiveSources":
        """All but these devices."""
        kept = [i for i, name in enumerate(self.devices) if name not in devices]
        names = tuple(self.devices[i] for i in kept)
        return AdditiveSources(names, self.encoding, self.slopes[:, kept], self.intercepts[kept])


def fit_sources(
    space: SearchSpace, genomes: Genomes, seconds: Floats, devices: Sequence[str]
) -> AdditiveSources:
    """Additive predictors of all devices at once, from one table of genomes (n, g) and seconds (n, d).

    Raises:
        TrilobitError: no row, a time that is not finite, or not one name for each column.
    """
    if not len(genomes) or seconds.shape != (len(genomes), len(devices)):
        raise TrilobitError(
            f"{len(genomes)} networks, {len(devices)} devices and a table {seconds.shape}; "
            "wanted one row per network and one column per device"
        )
    if not np.isfinite(seconds).all():
        row, column = np.argwhere(~np.isfinite(seconds))[0].tolist()
        raise TrilobitError(
            f"{devices[column]}: latency of row {row} is {seconds[row, column]}; leave rows out that were "
            "not measured on every device"
        )
    encoding = every(space)
    x = encoding(genomes).astype(np.float64)
    centre = x.mean(axis=0)
    targets = (seconds - seconds.mean(axis=0)) / np.maximum(seconds.std(axis=0), TINY * np.abs(seconds).max())
    x -= centre
    slopes = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ targets)
    return AdditiveSources(tuple(devices), encoding, slopes, -centre @ slopes)


def choose_networks(
    predictor: LatencyPredictor, pool: Genomes, n: int, *, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(n,) rows of `pool` (p, g) that, once measured, leave the least variance in the pool on average.

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
    chosen: list[int] = []
    for _ in range(n):
        gain = (covariance**2).sum(axis=0) / (np.diag(covariance) + NOISE)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        known = covariance[:, best] / np.sqrt(covariance[best, best] + NOISE)
        covariance = covariance - np.outer(known, known)
    return some[chosen]

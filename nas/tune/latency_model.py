"""What policies take, from a few that were timed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy.ridge import fit_line
from supernet.imported.model import ImportedModel
from supernet.space.space import Genomes, SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Borders:
    """Where tensors change between codes and real numbers.

    Attributes:
        space: of the policies.
        static: (slots,) whether an option has activations in codes.
        edges: (e, 2) columns of choices, the second of which reads what the first gives.
    """

    space: SearchSpace
    static: NDArray[np.bool_]
    edges: NDArray[np.int64]

    def features(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return (n, d): each option beside the first, then each border that is crossed."""
        slots = self.space.one_hot(genomes)
        first = np.concatenate([[True] + [False] * (len(c.options) - 1) for c in self.space.choices])
        starts = np.concatenate(([0], np.cumsum(self.space.cardinalities)[:-1]))
        in_codes = np.add.reduceat(slots * self.static, starts, axis=1) > 0
        crossed = in_codes[:, self.edges[:, 0]] != in_codes[:, self.edges[:, 1]]
        return np.hstack([slots[:, ~first], crossed]).astype(np.float32)


def borders_of(model: ImportedModel, space: SearchSpace, static: frozenset[str]) -> Borders:
    """Return where a model's policies have borders.

    Args:
        static: names of formats whose activations are in codes.
    """
    options = [str(option) in static for choice in space.choices for option in choice.options]
    edges = [
        (space.columns[producer.name], space.columns[unit.name])
        for unit in model.units
        for tensor in unit.inputs
        if (producer := model.producers.get(tensor)) is not None
        and unit.name in space.columns
        and producer.name in space.columns
    ]
    pairs = np.array(list(dict.fromkeys(edges)), np.int64).reshape(-1, 2)
    return Borders(space, np.array(options, bool), pairs)


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Times of policies over the original's.

    Attributes:
        borders: what is counted of a policy.
        slope: (d,) of what is counted.
        level: of fp32 throughout.
        error: relative standard deviation of the error on policies that were left out.
    """

    borders: Borders
    slope: Floats
    level: float
    error: float

    def __call__(self, genomes: Genomes) -> Floats:
        """Return the ratios (n,) of policies (n, g)."""
        return np.asarray(self.level + self.borders.features(genomes) @ self.slope, np.float64)


def fit_latency(borders: Borders, genomes: Genomes, ratios: Floats) -> LatencyModel:
    """Return the model of policies (n, g) whose times over the original's are `ratios` (n,); those that do
    not run are left out.
    """
    timed = np.isfinite(ratios)
    x, y = borders.features(genomes[timed]), ratios[timed]
    line = fit_line(x, y - y.mean())
    level = float(y.mean() - line.centre @ line.slope)
    return LatencyModel(borders, line.slope, level, float(line.noise / y.mean()))

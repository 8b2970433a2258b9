"""How large the files of policies are, from some that were written."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy.ridge import fit_line
from supernet.space.space import Genomes, SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SizeModel:
    """Bytes of the files of policies: a sum over units.

    Attributes:
        space: of the policies.
        slope: (slots,) bytes of each option.
        level: of all else.
    """

    space: SearchSpace
    slope: Floats
    level: float

    def __call__(self, genomes: Genomes) -> Floats:
        """Return bytes (n,) of policies (n, g)."""
        return np.asarray(self.level + self.space.one_hot(genomes) @ self.slope, np.float64)


def fit_size(space: SearchSpace, genomes: Genomes, sizes: Floats) -> SizeModel:
    """Return the model of policies (n, g) whose files have `sizes` (n,)."""
    line = fit_line(space.one_hot(genomes), sizes - sizes.mean())
    return SizeModel(space, line.slope, float(sizes.mean() - line.centre @ line.slope))

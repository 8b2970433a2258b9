"""`Samples`: examples of what a network reads, by the names of its inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Examples, as the network reads them one at a time.

    Attributes:
        inputs: (n, ...) by input; row i, of the network's own rank and type, is what it reads for example i:
            a batch of one where the network has a batch.
        labels: (n,) right answers; None where they are not known.
        names: (n,) what the examples are called, such as paths of files; empty where they have none.
        classes: names that labels count, where they are known.
        origin: where they come from, how they were made, and what was assumed: one line.
    """

    inputs: Mapping[str, NDArray[np.generic]]
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    origin: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, rows: Rows) -> "Samples":
        """Return the examples of these rows."""
        return replace(
            self,
            inputs={name: array[rows] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[rows],
            names=tuple(self.names[row] for row in rows) if self.names else (),
        )

    def feed(self, row: int) -> dict[str, NDArray[np.generic]]:
        """Return what the network reads for one example."""
        return {name: np.asarray(array[row]) for name, array in self.inputs.items()}  # numbers are arrays too


@dataclass(frozen=True, eq=False)
class SampleParts:
    """Disjoint examples.

    Attributes:
        calibration: what ranges and roundings are found on.
        choosing: what policies are compared on.
        judging: what nothing sees before the front is judged.
    """

    calibration: Samples
    choosing: Samples
    judging: Samples

    def __str__(self) -> str:
        """Return how many there are of each."""
        sizes = f"{len(self.calibration):,} to calibrate on, {len(self.choosing):,} to choose by"
        return f"{sizes}, {len(self.judging):,} to judge the front by; no sample is in two of them"

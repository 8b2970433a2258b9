"""NAS-Bench-201 (Dong & Yang 2020, arXiv:2001.00326) with latencies of a phone: a space measured whole."""

from pathlib import Path

import numpy as np

from nas.search.pareto import Matrix, hypervolume
from supernet.space.space import Choice, Genomes, SearchSpace

DEVICE, ACCURACY = "samsung_a50", "cifar100_test"


class MeasuredSpace:
    """All 15,625 networks and what was measured of them.

    Attributes:
        space: six operations.
        reference: (2,) the worst of everything.
    """

    def __init__(self, data: Path) -> None:
        with np.load(data / "latency" / "nb201.npz") as file:
            ops, names = file["ops"].astype(np.int64), [str(name) for name in file["op_names"]]
            accuracy = file["acc"][:, file["acc_cols"].tolist().index(ACCURACY)].astype(np.float64)
            latency = file["lat"][:, file["lat_devices"].tolist().index(DEVICE)].astype(np.float64)
        edges = [
            Choice(f"s0.b{i}.op", tuple(names), role="op", stage=0, block=i) for i in range(ops.shape[1])
        ]
        self.space = SearchSpace("nb201", tuple(edges))
        self._place = len(names) ** np.arange(ops.shape[1])
        self._values = np.empty((len(ops), 2))
        self._values[ops @ self._place] = np.column_stack((np.log(100 - accuracy), np.log(latency)))
        self.reference = self._values.max(axis=0).tolist()
        self._whole = hypervolume(self._values, self.reference)

    def measure(self, genomes: Genomes) -> Matrix:
        """(n, 2) logarithms of the error in percent and of milliseconds."""
        return np.asarray(self._values[genomes.astype(np.int64) @ self._place])

    def share(self, genomes: Genomes) -> float:
        """Hypervolume of these networks, as a share of the true front's."""
        return hypervolume(self.measure(genomes), self.reference) / self._whole

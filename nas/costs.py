"""What the space's networks cost: the compiled table, and predictions of latency, size and multiply-adds
from it.
"""

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from hw_profiles.profile import KINDS, Calibration, DeviceProfile, kind
from hw_profiles.workload import LayerSpec, Workload, macs
from nas.export.to_onnx import file_overhead, file_size
from predictors.table import CostTable, compile_table
from supernet.family import Family
from supernet.space import Genomes

STATIC = ("size", "macs")  # known without a device


@dataclass(frozen=True)
class Costs:
    """Predicted costs of one space on one device.

    Attributes:
        table: bytes, multiply-adds, then seconds (before calibration) and number of rows of each kind of row.
        calibration: from summed seconds to whole networks.
        size_overhead: bytes of an ONNX file besides its layers.
    """

    table: CostTable
    calibration: Calibration
    size_overhead: int

    def predict(self, genomes: Genomes) -> dict[str, NDArray[np.float64]]:
        """(n, g) canonical genomes -> `latency` in seconds, `size` in bytes, `macs`, each (n,)."""
        sums = self.table(genomes)
        return {
            "latency": self.calibration.predict_s(sums[:, 2 : 2 + len(KINDS)], sums[:, 2 + len(KINDS) :]),
            "size": sums[:, 0] + self.size_overhead,
            "macs": sums[:, 1],
        }

    def latency_std(self, latency_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) expected error of predicted seconds: the relative error on held-out networks."""
        error = self.calibration.held_out_error().get("mape", 0.0)
        return np.asarray(
            latency_s * error * np.sqrt(np.pi / 2)
        )  # mean absolute error of a normal distribution


def compile_costs(family: Family, profile: DeviceProfile | None) -> Costs:
    """Costs of the family's space; without a profile all seconds are 0."""

    def seconds(layer: LayerSpec, of_kind: str) -> float:
        return profile.cost_s(layer) if profile and kind(layer) == of_kind else 0.0

    def rows(layer: LayerSpec, of_kind: str) -> float:
        return float(kind(layer) == of_kind)

    kinds = [partial(cost, of_kind=one) for cost in (seconds, rows) for one in KINDS]
    table = compile_table(family.space(), family.terms(), [cache(file_size), macs, *kinds])
    calibration = (profile.calibration if profile else None) or Calibration()
    return Costs(table, calibration, file_overhead())


def workload_macs(workload: Workload) -> int:
    """Multiply-adds of one network."""
    return sum(map(macs, workload.layers))

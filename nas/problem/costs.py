"""What the space's networks cost: the compiled tables, and predictions of latency, energy, size, memory and
multiply-adds from them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import LayerSpec
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.workload import Workload
from hw_profiles.profiles.latency_model import Calibration
from hw_profiles.profiles.profile import DeviceProfile
from nas.emit.to_onnx import file_overhead, file_size
from predictors.table import CostTable, PeakTable, compile_peak, compile_table, distinct_layers
from supernet.families.family import Family
from supernet.space.space import Genomes

STATIC = ("size", "macs", "memory")  # known without a device
COLUMNS = ("size", "macs", "rejected", "latency")  # of the table, before energy where that is known
ON_DEVICE = ("latency", "energy")  # infinite for a network that the device cannot run


@dataclass(frozen=True)
class Costs:
    """Predicted costs of one space on one device.

    Attributes:
        table: bytes, multiply-adds, number of rows that the device rejects, calibrated seconds, and joules
            where they are known.
        memory: peak bytes of tensors.
        calibration: from rows to whole networks; its part of each row is in the table.
        size_overhead: bytes of an ONNX file besides its layers.
    """

    table: CostTable
    memory: PeakTable
    calibration: Calibration
    size_overhead: int

    def predict(self, genomes: Genomes) -> dict[str, NDArray[np.float64]]:
        """(n, g) canonical genomes -> `latency` in seconds, `size` in bytes, `macs`, `memory` in bytes
        (exact) and, where every row of the profile has it, `energy` in joules; each (n,).

        Latency and energy of a network with a unit that the device rejects are infinite.
        """
        sums = self.table(genomes)
        values = {
            "latency": sums[:, 3] + self.calibration.intercept_s,
            "size": sums[:, 0] + self.size_overhead,
            "macs": sums[:, 1],
            "memory": self.memory(genomes),
        }
        if sums.shape[1] > len(COLUMNS):
            values["energy"] = sums[:, len(COLUMNS)]
        for name in ON_DEVICE:
            if name in values:
                values[name] = np.where(sums[:, 2] > 0, np.inf, values[name])
        return values

    def latency_std(self, latency_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) expected error of predicted seconds: the relative error on held-out networks; 0 where the
        device cannot run the network.
        """
        error = self.calibration.held_out_error().get("mape", 0.0)
        finite = np.where(np.isfinite(latency_s), latency_s, 0.0)
        return np.asarray(finite * error * np.sqrt(np.pi / 2))  # mean absolute error of a normal distribution


def compile_costs(family: Family, profile: DeviceProfile | None) -> Costs:
    """Costs of the family's space; without a profile all seconds are 0."""
    # A rejected unit counts 0 s and one rejection: infinity times a slope of 0 would be no number, and times
    # one below 0 it would be the best latency there is.
    known_s: Callable[[LayerSpec], float] = cache(profile.cost_s) if profile else lambda layer: 0.0

    def rejected(layer: LayerSpec) -> float:
        return float(math.isinf(known_s(layer)))

    def seconds(layer: LayerSpec) -> float:
        return 0.0 if profile is None or rejected(layer) else calibration.row_s(layer, known_s(layer))

    def joules(layer: LayerSpec) -> float:
        return 0.0 if profile is None or rejected(layer) else profile.energy_j(layer)

    calibration = (profile.calibration if profile else None) or Calibration()
    space, terms = family.space(), family.terms()
    runs = [] if profile is None else [one for one in distinct_layers(space, terms) if not rejected(one)]
    energy = [joules] if runs and not any(math.isnan(joules(layer)) for layer in runs) else []
    table = compile_table(space, terms, [_file_sizes(), macs, rejected, seconds, *energy])
    memory = compile_peak(space, family.peak_terms(), peak_bytes)
    return Costs(table, memory, calibration, file_overhead())


def _file_sizes() -> Callable[[LayerSpec], int]:
    """`file_size` of each unit, found once for all map sizes: a file holds weights and nodes, but no maps."""
    known = cache(file_size)
    return lambda layer: known(replace(layer, in_shape=(layer.in_shape[0], 1, 1)))


def workload_macs(workload: Workload) -> int:
    """Multiply-adds of one network."""
    return sum(map(macs, workload.layers))

"""What the space's networks cost: tables compiled of every registered cost, and predictions from them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import Layer
from hw_profiles.profiles.latency_model import Calibration
from hw_profiles.profiles.profile import DeviceProfile
from nas.search.objectives import objectives
from predictors.table import CostTable, PeakTable, compile_peak, compile_table, distinct_layers
from supernet.families.family import Family
from supernet.space.space import Genomes

LATENCY, ENERGY = "latency", "energy"
REJECTED = "rejected"  # column of the table: how many layers the device cannot run


@dataclass(frozen=True)
class Costs:
    """Predicted costs of one space on one device.

    Attributes:
        table: of what adds up over the layers: the registered counts, the number of layers that the device
            rejects, calibrated seconds, and joules where they are known.
        columns: of the table, by name of the objective or `REJECTED`.
        peaks: by name of the objective, counts that are the largest of a network's parts.
        constants: by name of the objective, what every network has besides.
        calibration: from rows to whole networks; its part of each row is in the table.
    """

    table: CostTable
    columns: tuple[str, ...]
    peaks: Mapping[str, PeakTable]
    constants: Mapping[str, float]
    calibration: Calibration

    def predict(self, genomes: Genomes) -> dict[str, NDArray[np.float64]]:
        """Return the costs (n,) of canonical genomes (n, g) by objective name: `latency` in seconds, every
        registered count such as `size` and `memory` in bytes or `macs`, and, where every row of the profile
        has it, `energy` in joules.

        Latency and energy of a network with a layer that the device rejects are infinite.
        """
        sums = dict(zip(self.columns, self.table(genomes).T, strict=True))
        rejected = sums.pop(REJECTED) > 0
        values = {name: column + self.constants.get(name, 0.0) for name, column in sums.items()}
        values |= {name: table(genomes) for name, table in self.peaks.items()}
        for name in self.on_device:
            values[name] = np.where(rejected, np.inf, values[name])
        return values

    @property
    def on_device(self) -> tuple[str, ...]:
        """Names of the costs that are the device's."""
        return tuple(name for name in self.columns if name in (LATENCY, ENERGY))

    def latency_std(self, latency_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) the expected error of predicted seconds: the relative error on held-out networks; 0
        where the device cannot run the network.
        """
        error = self.calibration.held_out_error().get("mape", 0.0)
        finite = np.where(np.isfinite(latency_s), latency_s, 0.0)
        return np.asarray(finite * error * np.sqrt(np.pi / 2))  # mean absolute error of a normal distribution


def compile_costs(family: Family, profile: DeviceProfile | None) -> Costs:
    """Return the costs of the family's space; without a profile all seconds are 0."""
    # A rejected unit counts 0 s and one rejection: infinity times a slope of 0 would be no number, and times
    # one below 0 it would be the best latency there is.
    known_s: Callable[[Layer], float] = cache(profile.cost_s) if profile else lambda layer: 0.0

    def rejected(layer: Layer) -> float:
        return float(math.isinf(known_s(layer)))

    def seconds(layer: Layer) -> float:
        return 0.0 if profile is None or rejected(layer) else calibration.row_s(layer, known_s(layer))

    def joules(layer: Layer) -> float:
        return 0.0 if profile is None or rejected(layer) else profile.energy_j(layer)

    calibration = (profile.calibration if profile else None) or Calibration()
    space, terms = family.space(), family.terms()
    counts = {stated.name: stated.count for stated in objectives().values() if stated.count is not None}
    summed = {name: count for name, count in counts.items() if not count.largest}
    measures = {
        **{name: count.load() for name, count in summed.items()},
        REJECTED: rejected,
        LATENCY: seconds,
    }
    runs = (
        [] if profile is None else [layer for layer in distinct_layers(space, terms) if not rejected(layer)]
    )
    if runs and not any(math.isnan(joules(layer)) for layer in runs):
        measures[ENERGY] = joules
    peaks = {
        name: compile_peak(space, family.peak_terms(), count.load())
        for name, count in counts.items()
        if count.largest
    }
    constants = {
        **{name: count.load_constant() for name, count in summed.items()},
        LATENCY: calibration.intercept_s,
    }
    table = compile_table(space, terms, [*measures.values()])
    return Costs(table, tuple(measures), peaks, constants, calibration)

"""`DeviceProfile`: what layers cost on one device, how it was measured, and how far it can be trusted.
`hw_profiles/profiles/profile_json.py` stores it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.working_set import working_set_bytes
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Estimate, Measurement, MeasurePlan, slowdown
from hw_profiles.profiles.latency_model import KINDS, Calibration, Validation, count_rows, kind
from hw_profiles.runtimes.info import DeviceInfo

PLAUSIBLE_S = 5e-7  # a difference of two networks may come out so far below 0 by noise


@dataclass(frozen=True)
class DeviceProfile:
    """One device's table, by layer.

    Attributes:
        device: what was measured on.
        plan: how.
        table: a measurement for every layer, or the error that prevented it; of a device without times
            those that it cannot run.
        estimates: predicted rows, for layers that were not measured or whose number is unreliable.
        calibration: from sums of rows to whole networks; None until measured.
        scenarios: the same for each scenario of decoders, by its name; that of the first is `calibration`.
        validation: the last `nas profile --validate`; None if there was none.
    """

    device: DeviceInfo
    plan: MeasurePlan
    table: Mapping[Layer, Measurement] = field(default_factory=dict)
    calibration: Calibration | None = None
    estimates: Mapping[Layer, Estimate] = field(default_factory=dict)
    validation: Validation | None = None
    scenarios: Mapping[str, Calibration] = field(default_factory=dict)

    def __contains__(self, layer: object) -> bool:
        """Return whether the profile says anything of a layer."""
        return layer in self.table or layer in self.estimates

    def cost_s(self, layer: Layer) -> float:
        """Return seconds of one layer: the measured median, brought to the device's usual speed where it was
        off by more than the plan allows, else the estimate; infinite where the device cannot run it, so that
        a search avoids it. Without times it is 0 where it can.

        Raises:
            TrilobitError: the layer is not in the profile: it was made for another space.
        """
        row = self.table.get(layer)
        if self.device.timeless:
            return 0.0 if row is None else row.median_s
        if row is not None and (row.error is not None or not self.unreliable(layer)):
            return row.median_s / slowdown(_drift(row, self.reference_s), self.plan)
        if layer in self.estimates:
            return self.estimates[layer].mean_s
        if row is not None:
            return float("inf")  # an unreliable number is no number
        raise TrilobitError(
            f"profile {self.device.name} has no row for {layer.key()!r}: it was made for another space; "
            "run `nas profile` for this one"
        )

    def std_s(self, layer: Layer) -> float:
        """Return the standard error of `cost_s`: of the median for a measured row, else the estimate's."""
        row = self.table.get(layer)
        if row is not None and row.samples_s and not self.unreliable(layer):
            # of a median, from the interquartile range, both of a normal distribution
            return row.iqr_s / 1.349 * math.sqrt(math.pi / 2 / len(row.samples_s))
        return self.estimates[layer].std_s if layer in self.estimates else 0.0

    def energy_j(self, layer: Layer) -> float:
        """Return joules of one layer; nan where the device cannot tell."""
        row = self.table.get(layer)
        return math.nan if row is None or row.energy_j is None else row.energy_j

    def sums_s(self, workload: Workload) -> tuple[float, ...]:
        """Return the sum of a network's rows of each kind in seconds, before calibration."""
        return tuple(
            sum(self.cost_s(layer) for layer in workload.layers if kind(layer) == row_kind)
            for row_kind in KINDS
        )

    def predict_s(self, workload: Workload) -> float:
        """Return calibrated whole-network seconds."""
        calibration = self.calibration or Calibration()
        sums_s, rows = np.array(self.sums_s(workload)), np.array(count_rows(workload))
        return float(calibration.predict_s(sums_s, rows, float(working_set_bytes(workload))))

    def calibrated(self, calibration: Calibration, scenario: str = "") -> "DeviceProfile":
        """Return the profile with a calibration, or with one of a scenario; the first scenario's is that of
        the profile.
        """
        if not scenario:
            return replace(self, calibration=calibration)
        scenarios = {**self.scenarios, scenario: calibration}
        return replace(self, calibration=next(iter(scenarios.values())), scenarios=scenarios)

    # -- how far it goes, and how good it is -----------------------------------------------------------

    def missing(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """Return the layers that were not measured yet."""
        return tuple(layer for layer in layers if layer not in self.table)

    def predicted(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """Return the layers whose cost is an estimate: not measured, or with a number that is unreliable."""
        return tuple(
            layer
            for layer in layers
            if layer in self.estimates and (layer not in self.table or self.unreliable(layer) is not None)
        )

    def unsupported(self) -> dict[Layer, str]:
        """Return the layers that the device cannot run, and why."""
        return {layer: row.error for layer, row in self.table.items() if row.error is not None}

    def unreliable(self, layer: Layer) -> str | None:
        """Return why the number of a measured row is not reported; None where it is, or where there is
        none.
        """
        row = self.table.get(layer)
        if row is None or row.error is not None:
            return None
        if row.median_s < -max(self.plan.max_spread * row.context_s, PLAUSIBLE_S):
            return f"a difference of {row.median_s * 1e6:.2g} us, and nothing takes less than no time"
        if row.spread <= self.plan.max_spread:
            return None
        return f"spread of {row.spread:.0%} is above the plan's {self.plan.max_spread:.0%}"

    def unreliable_layers(self) -> tuple[Layer, ...]:
        """Return the layers whose number is unreliable."""
        return tuple(layer for layer in self.table if self.unreliable(layer))

    def to_measure_again(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """Return the layers to measure again: their row was mostly measured while something else used the
        core, or while the whole machine ran slower or faster than usual, or it is unreliable.
        """
        usual_s = self.reference_s
        return tuple(
            layer
            for layer in layers
            if layer in self.table
            and self.table[layer].error is None
            and (
                self.table[layer].undisturbed_windows < self.plan.rounds
                or abs(_drift(self.table[layer], usual_s)) > self.plan.max_drift
                or self.unreliable(layer)
            )
        )

    @cached_property
    def reference_s(self) -> float | None:
        """Usual time of the reference network: its median over all rows; None where there is none."""
        references_s = [row.reference_s for row in self.table.values() if row.reference_s is not None]
        return float(np.median(references_s)) if references_s else None

    def drift(self, layer: Layer) -> float:
        """Return how much slower than usual, as a share, the reference network ran beside a row; 0 where
        unknown.
        """
        return _drift(self.table[layer], self.reference_s)


def _drift(row: Measurement, usual_s: float | None) -> float:
    return 0.0 if row.reference_s is None or not usual_s else row.reference_s / usual_s - 1

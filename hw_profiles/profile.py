"""`DeviceProfile`: what layers cost on one device, how it was measured, and how far it can be trusted.
Stored as `profile/1`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.backend import DeviceInfo
from hw_profiles.calibration import KINDS, Calibration, Validation, WholeNetwork, count_rows, groups, kind
from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json, write_json
from hw_profiles.measurement import Estimate, Measurement, MeasurePlan, slowdown
from hw_profiles.workload import LayerSpec, Workload, parse_key

SCHEMA = "profile/1"


PLAUSIBLE_S = 5e-7  # a difference of two networks may come out so far below 0 by noise


@dataclass(frozen=True)
class DeviceProfile:
    """One device's table, by layer.

    Attributes:
        device: what was measured on.
        plan: how.
        table: a measurement for every layer, or the error that prevented it.
        estimates: predicted rows, for layers that were not measured or whose number was refused.
        calibration: from sums of rows to whole networks; None until measured.
        validation: the last `nas profile --validate`; None if there was none.
    """

    device: DeviceInfo
    plan: MeasurePlan
    table: Mapping[LayerSpec, Measurement] = field(default_factory=dict)
    calibration: Calibration | None = None
    estimates: Mapping[LayerSpec, Estimate] = field(default_factory=dict)
    validation: Validation | None = None

    def __contains__(self, layer: object) -> bool:
        """Whether the profile says anything of a layer."""
        return layer in self.table or layer in self.estimates

    def cost_s(self, layer: LayerSpec) -> float:
        """Seconds of one layer: the measured median, brought to the device's usual speed where it was off by
        more than the plan allows, else the estimate; infinite where the device cannot run it, so that a
        search avoids it.

        Raises:
            TrilobitError: the layer is not in the profile: it was made for another space.
        """
        row = self.table.get(layer)
        if row is not None and (row.error is not None or not self.refused(layer)):
            return row.median_s / slowdown(_drift(row, self.reference_s), self.plan)
        if layer in self.estimates:
            return self.estimates[layer].mean_s
        if row is not None:
            return float("inf")  # a refused number is no number
        raise TrilobitError(
            f"profile {self.device.name} has no row for {layer.key()!r}: it was made for another space; "
            "run `nas profile` for this one"
        )

    def std_s(self, layer: LayerSpec) -> float:
        """Standard error of `cost_s`: of the median for a measured row, else the estimate's."""
        row = self.table.get(layer)
        if row is not None and row.samples_s and not self.refused(layer):
            # of a median, from the interquartile range, both of a normal distribution
            return row.iqr_s / 1.349 * math.sqrt(math.pi / 2 / len(row.samples_s))
        return self.estimates[layer].std_s if layer in self.estimates else 0.0

    def energy_j(self, layer: LayerSpec) -> float:
        """Joules of one layer; nan where the device cannot tell."""
        row = self.table.get(layer)
        return math.nan if row is None or row.energy_j is None else row.energy_j

    def sums_s(self, workload: Workload) -> tuple[float, ...]:
        """Sum of a network's rows of each kind in seconds, before calibration."""
        return tuple(
            sum(self.cost_s(layer) for layer in workload.layers if kind(layer) == one) for one in KINDS
        )

    def predict_s(self, workload: Workload) -> float:
        """Calibrated whole-network seconds."""
        calibration = self.calibration or Calibration()
        return float(calibration.predict_s(np.array(self.sums_s(workload)), np.array(count_rows(workload))))

    # -- how far it goes, and how good it is -----------------------------------------------------------

    def missing(self, layers: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
        """Layers that were not measured yet."""
        return tuple(layer for layer in layers if layer not in self.table)

    def predicted(self, layers: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
        """Layers whose cost is an estimate: not measured, or with a number that is refused."""
        return tuple(
            layer
            for layer in layers
            if layer in self.estimates and (layer not in self.table or self.refused(layer) is not None)
        )

    def rejected(self) -> dict[LayerSpec, str]:
        """Layers that the device cannot run, and why."""
        return {layer: row.error for layer, row in self.table.items() if row.error is not None}

    def refused(self, layer: LayerSpec) -> str | None:
        """Why the number of a measured row is not reported; None where it is, or where there is none."""
        row = self.table.get(layer)
        if row is None or row.error is not None:
            return None
        if row.median_s < -max(self.plan.max_spread * row.context_s, PLAUSIBLE_S):
            return f"a difference of {row.median_s * 1e6:.2g} us, and nothing takes less than no time"
        if row.spread <= self.plan.max_spread:
            return None
        return f"spread of {row.spread:.0%} is above the plan's {self.plan.max_spread:.0%}"

    def unsteady(self) -> tuple[LayerSpec, ...]:
        """Layers whose number is refused."""
        return tuple(layer for layer in self.table if self.refused(layer))

    def disturbed(self, layers: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
        """Layers to measure again: their row was mostly measured while something else used the core, or while
        the whole machine ran slower or faster than usual, or it is refused.
        """
        usual_s = self.reference_s
        return tuple(
            layer
            for layer in layers
            if layer in self.table
            and self.table[layer].error is None
            and (
                self.table[layer].quiet_share < self.plan.quiet_share
                or abs(_drift(self.table[layer], usual_s)) > self.plan.max_drift
                or self.refused(layer)
            )
        )

    @cached_property
    def reference_s(self) -> float | None:
        """Usual time of the reference network: its median over all rows; None where there is none."""
        seen = [row.reference_s for row in self.table.values() if row.reference_s is not None]
        return float(np.median(seen)) if seen else None

    def drift(self, layer: LayerSpec) -> float:
        """How much slower than usual, as a share, the reference network ran beside a row; 0 where unknown."""
        return _drift(self.table[layer], self.reference_s)


def _drift(row: Measurement, usual_s: float | None) -> float:
    return 0.0 if row.reference_s is None or not usual_s else row.reference_s / usual_s - 1


def save_profile(profile: DeviceProfile, path: Path) -> None:
    """Write `profile/1` atomically."""
    layers = [*profile.table, *(layer for layer in profile.estimates if layer not in profile.table)]
    table = {layer.key(): _row_json(profile, layer) for layer in layers}
    document = {
        "schema": SCHEMA,
        "device": profile.device.to_json(),
        "plan": profile.plan.to_json(),
        "table": table,
        "calibration": _calibration_json(profile.calibration),
        "validation": _validation_json(profile.validation, profile.calibration or Calibration()),
    }
    write_json(path, document, indent=None)


def load_profile(path: Path) -> DeviceProfile:
    """Read `profile/1`.

    Raises:
        TrilobitError: missing, truncated, of another schema, or with rows that are not times.
    """
    document = read_json(path, SCHEMA)
    try:
        return DeviceProfile(
            device=DeviceInfo(**document["device"]),
            plan=MeasurePlan(**document["plan"]),
            table={
                parse_key(key): _row(key, row)
                for key, row in document["table"].items()
                if row["samples_s"] or row["error"] is not None or row.get("predicted_s") is None
            },
            calibration=_calibration_from_json(document["calibration"]),
            estimates={
                parse_key(key): Estimate(row["predicted_s"], row["predicted_std_s"])
                for key, row in document["table"].items()
                if row.get("predicted_s") is not None
            },
            validation=_validation_from_json(document.get("validation")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, TrilobitError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else error
        raise TrilobitError(f"{path}: not a usable profile ({what}); run `nas profile` again") from None


def _row_json(profile: DeviceProfile, layer: LayerSpec) -> dict[str, Any]:
    """One entry: what was measured, what was predicted instead, and which of them counts."""
    m, estimate = profile.table.get(layer), profile.estimates.get(layer)
    refused, counts = profile.refused(layer), m is not None and bool(m.samples_s)
    return {
        "source": profile.device.figures if m is not None and not refused else "predicted",
        "samples_s": list(m.samples_s) if m else [],
        "median_s": m.median_s if m and counts and not refused else None,
        "iqr_s": m.iqr_s if m and counts else None,
        "quiet_share": m.quiet_share if m else None,
        "context_s": m.context_s if m else None,
        "reference_s": m.reference_s if m else None,
        "energy_j": m.energy_j if m else None,
        "error": m.error if m else None,
        "refused": refused,
        "predicted_s": estimate.mean_s if estimate else None,
        "predicted_std_s": estimate.std_s if estimate else None,
    }


def _row(key: str, row: Mapping[str, Any]) -> Measurement:
    samples = tuple(float(sample) for sample in row["samples_s"])
    if not all(map(math.isfinite, samples)):
        raise ValueError(f"row {key!r} holds a value that is not a finite number of seconds")
    if samples and not row.get("context_s") and float(np.median(samples)) < -PLAUSIBLE_S:
        raise ValueError(f"row {key!r} says {np.median(samples):g} s, and nothing takes less than no time")
    return Measurement(
        samples,
        row["error"],
        row["quiet_share"],
        row.get("context_s", 0.0),
        row.get("reference_s"),
        row.get("energy_j"),
    )


def _calibration_json(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "slope": dict(zip(KINDS, calibration.slopes, strict=True)),
        "per_row_s": dict(zip(KINDS, calibration.per_row_s, strict=True)),
        "intercept_s": calibration.intercept_s,
        "n_networks": sum(not net.held_out for net in calibration.networks),
        "held_out": {
            name: _error_json(calibration.held_out_error(precision))
            for name, precision in groups(calibration.networks).items()
        },
        "networks": _networks_json(calibration.networks, calibration),
    }


def _validation_json(validation: Validation | None, calibration: Calibration) -> dict[str, Any] | None:
    if validation is None:
        return None
    return {
        "draw": validation.draw,
        "date": validation.date,
        "error": {
            name: _error_json(validation.error(calibration, precision))
            for name, precision in groups(validation.networks).items()
        },
        "networks": _networks_json(validation.networks, calibration),
    }


def _error_json(error: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no nan: a rank correlation of one network is null."""
    return {name: None if math.isnan(value) else value for name, value in error.items()}


def _networks_json(networks: Sequence[WholeNetwork], calibration: Calibration) -> list[dict[str, Any]]:
    predicted_s = calibration.predict_networks_s(networks).tolist()
    return [
        {
            "format": net.precision,
            "held_out": net.held_out,
            "sums_s": list(net.sums_s),
            "rows": list(net.rows),
            "predicted_s": predicted,
            "measured_s": net.measured_s,
            "iqr_s": net.iqr_s,
            "quiet_share": net.quiet_share,
            "drift": net.drift,
        }
        for net, predicted in zip(networks, predicted_s, strict=True)
    ]


def _calibration_from_json(document: Mapping[str, Any] | None) -> Calibration | None:
    if document is None:
        return None
    slopes, per_row_s = (_by_kind(document[name]) for name in ("slope", "per_row_s"))
    networks = _networks(document["networks"])
    return Calibration(tuple(slopes.values()), tuple(per_row_s.values()), document["intercept_s"], networks)


# Profiles of version 0.1 had three kinds of rows: what became of each, the first of which holds old sums.
_FORMERLY: Mapping[str, tuple[str, ...]] = {
    "fp32": KINDS[:3],
    "integer": KINDS[3:6],
    "conversion": KINDS[6:],
}


def _by_kind(values: Mapping[str, float]) -> dict[str, float]:
    """A number for every kind, also from a profile with three."""
    if set(values) == set(_FORMERLY):
        values = {now: values[before] for before, kinds in _FORMERLY.items() for now in kinds}
    return {one: values[one] for one in KINDS}


def _of_kinds(values: Sequence[Any]) -> tuple[Any, ...]:
    """Sums or numbers of rows, also those of a profile with three kinds: they predict the same."""
    if len(values) != len(_FORMERLY):
        return tuple(values)
    place = {kinds[0]: value for kinds, value in zip(_FORMERLY.values(), values, strict=True)}
    return tuple(place.get(one, 0) for one in KINDS)


def _validation_from_json(document: Mapping[str, Any] | None) -> Validation | None:
    if document is None:
        return None
    return Validation(document["draw"], document["date"], _networks(document["networks"]))


def _networks(rows: Sequence[Mapping[str, Any]]) -> tuple[WholeNetwork, ...]:
    return tuple(
        WholeNetwork(
            precision=row["format"],
            held_out=row["held_out"],
            sums_s=_of_kinds(row["sums_s"]),
            rows=_of_kinds(row["rows"]),
            measured_s=row["measured_s"],
            iqr_s=row["iqr_s"],
            quiet_share=row["quiet_share"],
            drift=row.get("drift", 0.0),
        )
        for row in rows
    )

"""`profile/1`: a device's profile as a file with a checksum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from hw_profiles.documents import read_document
from hw_profiles.files import write_json
from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.measure.measurement import Estimate, Measurement, MeasurePlan, estimator
from hw_profiles.profiles.latency_model import KINDS, Calibration, Validation, WholeNetwork, groups
from hw_profiles.profiles.profile import PLAUSIBLE_S, DeviceProfile
from hw_profiles.profiles.trust import trust
from hw_profiles.runtimes.info import DeviceInfo, Figures

# Profiles of version 0.1 had three kinds of rows: what became of each, the first of which holds old sums.
_FORMERLY: Mapping[str, tuple[str, ...]] = {
    "fp32": KINDS[:3],
    "integer": KINDS[3:6],
    "conversion": KINDS[6:],
}
# and did not say what their figures were: the engine told
_FORMERLY_FIGURES: Mapping[str, Figures] = {"analytical": "modelled", "published table": "published"}


def _positive(value: float) -> None:
    if value <= 0:
        raise ValueError(f"expected more than 0, got {value:g}")


def _share(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"a share is from 0 to 1, got {value:g}")


def _of_kinds(values: Sequence[float]) -> None:
    if len(values) not in (len(KINDS), len(_FORMERLY)):
        raise ValueError(f"expected {len(KINDS)} values, one per kind of row, got {len(values)}")


def _by_kind(values: Mapping[str, float]) -> None:
    if (missing := set(KINDS) - set(values)) and set(values) != set(_FORMERLY):
        raise ValueError(f"without {sorted(missing)[0]!r}")


@dataclass(frozen=True)
class _Row:
    """One entry of the table: what was measured, what was predicted instead, and which of them counts.

    Attributes:
        samples_s: one per undisturbed window; where the row is a difference of networks, of that.
        error: why there is no usable measurement.
        quiet_share: share of windows that were undisturbed.
        context_s: median of the network that the row was measured in.
        reference_s: of the reference network beside it.
        energy_j: of one inference.
        load: of the machine then.
        temperature_c, frequency_hz: of the processor then, on boards that say so.
        predicted_s, predicted_std_s: mean and standard deviation of what is predicted instead.
    """

    samples_s: tuple[float, ...]
    error: str | None
    quiet_share: Annotated[float, _share] | None = 1.0
    context_s: float | None = 0.0
    reference_s: Annotated[float, _positive] | None = None
    energy_j: float | None = None
    load: float | None = None
    temperature_c: float | None = None
    frequency_hz: float | None = None
    predicted_s: float | None = None
    predicted_std_s: float | None = None

    def __post_init__(self) -> None:
        if self.measured:
            self.measurement()
        self.estimate()

    @property
    def measured(self) -> bool:
        """Whether it says more than an estimate."""
        return bool(self.samples_s) or self.error is not None or self.predicted_s is None

    def measurement(self) -> Measurement:
        """Return what was measured.

        Raises:
            ValueError: nothing was, or a time below 0.
        """
        context_s = self.context_s or 0.0
        # medians of thousands of rows take longer than all else, and hardly one has a sample below 0
        doubtful = not context_s and min(self.samples_s, default=0.0) < -PLAUSIBLE_S
        if doubtful and (median_s := float(np.median(self.samples_s))) < -PLAUSIBLE_S:
            raise ValueError(f"{median_s:g} s, and nothing takes less than no time")
        quiet_share = 1.0 if self.quiet_share is None else self.quiet_share
        return Measurement(
            *(self.samples_s, self.error, quiet_share, context_s, self.reference_s, self.energy_j, self.load),
            temperature_c=self.temperature_c,
            frequency_hz=self.frequency_hz,
        )

    def estimate(self) -> Estimate | None:
        """Return what was predicted; None where nothing was.

        Raises:
            ValueError: not two finite times.
        """
        return None if self.predicted_s is None else Estimate(self.predicted_s, self.predicted_std_s or 0.0)


@dataclass(frozen=True)
class _Network:
    """One network that was measured as a whole.

    Attributes:
        format: fp32, int8 or mixed.
        held_out: whether the calibration has not seen it.
        sums_s: of its rows, by kind of row.
        rows: how many, by kind of row.
        measured_s, iqr_s: median and interquartile range as a whole.
        quiet_share: share of windows that were undisturbed.
        drift: of the reference network meanwhile, relative.
        working_set_bytes: of its weights and caches.
    """

    format: str
    held_out: bool
    sums_s: Annotated[tuple[float, ...], _of_kinds]
    rows: Annotated[tuple[int, ...], _of_kinds]
    measured_s: Annotated[float, _positive]
    iqr_s: float
    quiet_share: Annotated[float, _share]
    drift: float = 0.0
    working_set_bytes: float = 0.0

    def noun(self) -> WholeNetwork:
        """Return it with a value for every kind of row; those of a profile with three predict the same."""
        return WholeNetwork(
            self.format,
            self.held_out,
            _spread(self.sums_s),
            tuple(map(int, _spread(self.rows))),
            self.measured_s,
            self.iqr_s,
            self.quiet_share,
            self.drift,
            self.working_set_bytes,
        )


@dataclass(frozen=True)
class _Calibration:
    """From rows to whole networks.

    Attributes:
        slope: by kind of row.
        per_row_s: added for every row, by kind.
        intercept_s: added once.
        networks: that it was fitted to and tested on.
        cache_bytes: what the nearest cache holds; null where none is noticed.
        per_byte_s: for what of a network's weights and caches does not fit into it.
    """

    slope: Annotated[Mapping[str, float], _by_kind]
    per_row_s: Annotated[Mapping[str, float], _by_kind]
    intercept_s: float
    networks: tuple[_Network, ...]
    cache_bytes: float | None = None
    per_byte_s: float = 0.0

    def noun(self) -> Calibration:
        """Return it with a value for every kind of row."""
        slopes, per_row_s = (_each_kind(values) for values in (self.slope, self.per_row_s))
        cache_bytes = math.inf if self.cache_bytes is None else self.cache_bytes
        networks = _nouns(self.networks)
        return Calibration(slopes, per_row_s, self.intercept_s, networks, cache_bytes, self.per_byte_s)


@dataclass(frozen=True)
class _Validation:
    """Networks measured after the calibration.

    Attributes:
        draw: which draw of random networks.
        date: UTC.
        networks: predicted and measured.
    """

    draw: int
    date: str
    networks: tuple[_Network, ...]


@dataclass(frozen=True)
class _Profile:
    """The whole file.

    Attributes:
        device: what was measured on.
        plan: how it was measured.
        table: rows by layer key.
        calibration: from sums of rows to whole networks.
        validation: later networks, of `--validate`.
        trust: the verdict in words.
        scenarios: of decoders, by name: from sums of rows to whole networks.
    """

    SCHEMA: ClassVar[str] = "profile/1"
    REMEDY: ClassVar[str] = "not a usable profile: run `nas profile` again"
    STRICT: ClassVar[bool] = True  # a damaged name must not make a field, the checksum least, vanish

    device: DeviceInfo
    plan: MeasurePlan
    table: Mapping[Annotated[str, parse_key], _Row]
    calibration: _Calibration | None
    validation: _Validation | None = None
    trust: str | None = None  # for readers of the file: it follows from the rest
    scenarios: Mapping[str, _Calibration] = field(default_factory=dict)

    def noun(self) -> DeviceProfile:
        """Return it by layers."""
        rows = {parse_key(key): row for key, row in self.table.items()}
        validation, device = self.validation, self.device
        return DeviceProfile(
            device=replace(device, figures=_FORMERLY_FIGURES.get(device.engine, device.figures)),
            plan=self.plan,
            table={layer: row.measurement() for layer, row in rows.items() if row.measured},
            calibration=self.calibration.noun() if self.calibration else None,
            estimates={layer: estimate for layer, row in rows.items() if (estimate := row.estimate())},
            validation=Validation(validation.draw, validation.date, _nouns(validation.networks))
            if validation
            else None,
            scenarios={name: calibration.noun() for name, calibration in self.scenarios.items()},
        )


def save_profile(profile: DeviceProfile, path: Path) -> None:
    """Write `profile/1` atomically."""
    layers = [*profile.table, *(layer for layer in profile.estimates if layer not in profile.table)]
    document = {
        "schema": _Profile.SCHEMA,
        "device": profile.device.to_json(),
        "plan": profile.plan.to_json(),
        "table": {layer.key(): _row_json(profile, layer) for layer in layers},
        "calibration": _calibration_json(profile.calibration),
        "validation": _validation_json(profile.validation, profile.calibration or Calibration()),
        "trust": str(trust(profile)) if profile.device.figures == "measured" else None,
    }
    if profile.scenarios:
        document["scenarios"] = {name: _calibration_json(c) for name, c in profile.scenarios.items()}
    write_json(path, document, indent=None, checksum=True)


def load_profile(path: Path) -> DeviceProfile:
    """Return the profile in a file of `profile/1`.

    Raises:
        TrilobitError: missing, truncated, of another schema, not as it was written, or with rows that are not
            times.
    """
    return read_document(path, _Profile).noun()


def _nouns(networks: Sequence[_Network]) -> tuple[WholeNetwork, ...]:
    return tuple(net.noun() for net in networks)


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    """Return sums or numbers of rows of every kind, also of a profile with three kinds of them."""
    if len(values) == len(KINDS):
        return tuple(values)
    place = {kinds[0]: value for kinds, value in zip(_FORMERLY.values(), values, strict=True)}
    return tuple(place.get(row_kind, 0) for row_kind in KINDS)


def _each_kind(values: Mapping[str, float]) -> tuple[float, ...]:
    """Return a number for every kind, also of a profile with three."""
    if set(values) == set(_FORMERLY):
        values = {
            row_kind: values[former_kind] for former_kind, kinds in _FORMERLY.items() for row_kind in kinds
        }
    return tuple(values[row_kind] for row_kind in KINDS)


# -- what is written ----------------------------------------------------------------------------------


def _row_json(profile: DeviceProfile, layer: Layer) -> dict[str, Any]:
    """Return one entry: what was measured, what was predicted instead, and which of them counts."""
    m, estimate = profile.table.get(layer), profile.estimates.get(layer)
    refused, counts = profile.unreliable(layer), m is not None and bool(m.samples_s)
    return {
        "source": profile.device.figures if m is not None and not refused else "predicted",
        "samples_s": list(m.samples_s) if m else [],
        "median_s": m.median_s if m and counts and not refused else None,
        "iqr_s": m.iqr_s if m and counts else None,
        "quiet_share": m.quiet_share if m else None,
        "quiet_windows": m.undisturbed_windows if m else None,
        "estimator": estimator(m, profile.plan) if m and counts else None,
        "load": m.load if m else None,
        "context_s": m.context_s if m else None,
        "reference_s": m.reference_s if m else None,
        "energy_j": m.energy_j if m else None,
        "error": m.error if m else None,
        **({"temperature_c": m.temperature_c} if m and m.temperature_c is not None else {}),
        **({"frequency_hz": m.frequency_hz} if m and m.frequency_hz is not None else {}),
        "refused": refused,
        "predicted_s": estimate.mean_s if estimate else None,
        "predicted_std_s": estimate.std_s if estimate else None,
    }


def _calibration_json(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "slope": dict(zip(KINDS, calibration.slopes, strict=True)),
        "per_row_s": dict(zip(KINDS, calibration.per_row_s, strict=True)),
        "intercept_s": calibration.intercept_s,
        "cache_bytes": None if math.isinf(calibration.cache_bytes) else calibration.cache_bytes,
        "per_byte_s": calibration.per_byte_s,
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
    """Return an error as plain data. JSON has no nan: a rank correlation of one network is null."""
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
            "working_set_bytes": net.working_set_bytes,
        }
        for net, predicted in zip(networks, predicted_s, strict=True)
    ]

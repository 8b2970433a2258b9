"""Two profiles side by side: what the same units take on two devices, or on one device twice."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.profiles.latency_model import kendall_tau
from hw_profiles.profiles.profile import DeviceProfile

# Measured units below this are mostly noise, as a residual sum that the engine fuses away: a share of the
# network that a row was measured in, or seconds where the profile does not say which.
NEAR_ZERO, NEAR_ZERO_S = 0.02, 3e-7
CLOSE = (0.03, 0.1)  # "within 3 %, within 10 %"
SHOWN = 10  # units listed as faster on one device


@dataclass(frozen=True, slots=True)
class Pair:
    """One unit with its median on both devices in seconds."""

    layer: Layer
    a_s: float
    b_s: float

    @property
    def ratio(self) -> float:
        """B over A: above 1 the unit is slower on B."""
        return self.b_s / self.a_s


@dataclass(frozen=True)
class Comparison:
    """Two profiles, unit by unit; everything is sorted by layer key.

    Attributes:
        a, b: names of the devices.
        pairs: units with a number on both that is not near zero: all ratios and ranks are of these.
        near_zero: units in both whose median is near zero on one of them: their ratio says nothing.
        unusable: units in both that at least one of them could not run, did not measure steadily, or only
            estimated.
        only_a, only_b: units that one profile alone knows.
    """

    a: str
    b: str
    pairs: tuple[Pair, ...]
    near_zero: tuple[Layer, ...] = ()
    unusable: tuple[Layer, ...] = ()
    only_a: tuple[Layer, ...] = ()
    only_b: tuple[Layer, ...] = ()

    @cached_property
    def times_s(self) -> NDArray[np.float64]:
        """(2, pairs) medians on A and on B in seconds."""
        return np.array([[pair.a_s, pair.b_s] for pair in self.pairs], np.float64).reshape(-1, 2).T

    @cached_property
    def ratios(self) -> NDArray[np.float64]:
        """(pairs,) B over A."""
        a_s, b_s = self.times_s
        return np.asarray(b_s / a_s)

    @property
    def median_ratio(self) -> float:
        """Of all pairs; nan where there are none."""
        return float(np.median(self.ratios)) if self.pairs else math.nan

    @property
    def spearman(self) -> float:
        """Rank correlation of the units' times; nan where it is not defined."""
        return spearman_rho(*self.times_s)

    @property
    def kendall(self) -> float:
        """Kendall's tau of the units' times; nan for fewer than two pairs."""
        return kendall_tau(*self.times_s)

    def share_within(self, share: float) -> float:
        """Return the share of the units whose time on B is within `share` of that on A; nan where there are
        none.
        """
        return float((np.abs(self.ratios - 1) <= share).mean()) if self.pairs else math.nan

    def by_kind(self) -> dict[tuple[str, str], tuple[int, float]]:
        """Return the number of units and median ratio by (kind of unit, number format)."""
        groups: dict[tuple[str, str], list[float]] = {}
        for pair in self.pairs:
            groups.setdefault((op_kind(pair.layer), number_format(pair.layer)), []).append(pair.ratio)
        return {key: (len(ratios), float(np.median(ratios))) for key, ratios in sorted(groups.items())}

    def faster_on_b(self, n: int = SHOWN) -> tuple[Pair, ...]:
        """Return at most `n` units that B runs faster than A does, the most first."""
        return tuple(sorted((p for p in self.pairs if p.ratio < 1), key=lambda p: p.ratio)[:n])

    def faster_on_a(self, n: int = SHOWN) -> tuple[Pair, ...]:
        """Return at most `n` units that A runs faster than B does, the most first."""
        return tuple(sorted((p for p in self.pairs if p.ratio > 1), key=lambda p: -p.ratio)[:n])

    def to_json(self) -> dict[str, Any]:
        """Return all figures as plain data; None where one is not defined."""
        return {
            "a": self.a,
            "b": self.b,
            "units": {
                "compared": len(self.pairs),
                "near_zero": _keys(self.near_zero),
                "unusable": _keys(self.unusable),
                "only_a": _keys(self.only_a),
                "only_b": _keys(self.only_b),
            },
            "median_ratio": _number(self.median_ratio),
            "within": {f"{share:g}": _number(self.share_within(share)) for share in CLOSE},
            "spearman": _number(self.spearman),
            "kendall_tau": _number(self.kendall),
            "by_kind": [
                {"kind": kind, "format": fmt, "units": n, "median_ratio": ratio}
                for (kind, fmt), (n, ratio) in self.by_kind().items()
            ],
            "faster_on_a": [_pair_json(pair) for pair in self.faster_on_a()],
            "faster_on_b": [_pair_json(pair) for pair in self.faster_on_b()],
            "ratios": {pair.layer.key(): pair.ratio for pair in self.pairs},
        }


def compare(a: DeviceProfile, b: DeviceProfile) -> Comparison:
    """Compare every unit of both profiles in its place."""
    known_a, known_b = ({*profile.table, *profile.estimates} for profile in (a, b))
    both = _sorted(known_a & known_b)
    usable = [layer for layer in both if _measured(a, layer) and _measured(b, layer)]
    near_zero = {layer for layer in usable if _near_zero(a, layer) or _near_zero(b, layer)}
    return Comparison(
        a.device.name,
        b.device.name,
        tuple(Pair(layer, a.cost_s(layer), b.cost_s(layer)) for layer in usable if layer not in near_zero),
        _sorted(near_zero),
        _sorted(set(both) - set(usable)),
        _sorted(known_a - known_b),
        _sorted(known_b - known_a),
    )


def why_nothing_in_common(a: DeviceProfile, b: DeviceProfile) -> str:
    """Return what keeps two profiles from sharing a unit, of those differences that a person can see."""
    units = [{*profile.table, *profile.estimates} for profile in (a, b)]
    if not all(units):
        return f"the {'second' if units[0] else 'first'} has no units at all: run `nas profile` for it"
    if shared := units[0] & units[1]:
        usable = [sum(_measured(profile, layer) for layer in shared) for profile in (a, b)]
        if any(_measured(a, layer) and _measured(b, layer) for layer in shared):
            return f"all that both measured of the {len(shared)} units in both take next to no time"
        return (
            f"{len(shared)} units are in both, but the first has a number for {usable[0]} of them and the "
            f"second for {usable[1]}: measure again with more time or on a quieter machine"
        )
    for name, property_of in _PROPERTIES.items():
        values = [{property_of(layer) for layer in layers} - {None} for layers in units]
        if values[0] and values[1] and not values[0] & values[1]:
            first, second = (_some(part) for part in values)
            return f"{name}: {first} in the first, {second} in the second; profile the same space and data"
    return "their units have other shapes: profile the same space and data"


# what two profiles may have none in common of, the likeliest reason first
_PROPERTIES: Mapping[str, Callable[[Layer], str | None]] = {
    "channels of the images": lambda layer: str(layer.in_shape[0]) if layer.kind == "stem" else None,
    "classes": lambda layer: str(layer.out_channels) if layer.kind == "linear" else None,
    "sizes of the images": lambda layer: str(layer.in_shape[1]) if layer.kind == "stem" else None,
    "number formats": lambda layer: number_format(layer),
    "kinds of units": lambda layer: op_kind(layer),
}


def _some(values: set[str | None]) -> str:
    ordered = sorted((str(value) for value in values), key=lambda text: (len(text), text))
    return ", ".join(ordered[:4]) + (", ..." if len(ordered) > 4 else "")


def op_kind(layer: Layer) -> str:
    """Return what kind of unit it is: its op, but convolutions by what they join, and all sums together."""
    if layer.kind == "conv":
        return "depthwise" if layer.depthwise else "pointwise" if layer.kernel == 1 else "conv"
    return "add" if layer.is_add else layer.kind


def number_format(layer: Layer) -> str:
    """Return the format of the weights or, where there are none or they are plain, of the arithmetic."""
    return layer.weight_format if layer.weight_format != FP32 else layer.activation_format


def spearman_rho(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two (n,) series, equal values sharing their mean rank; nan where
    all values of one are equal.

    >>> spearman_rho(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    ranks = [_ranks(series) for series in (a, b)]
    centred = [series - series.mean() if len(series) else series for series in ranks]
    norm = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / norm if norm > 0 else math.nan


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def _measured(profile: DeviceProfile, layer: Layer) -> bool:
    row = profile.table.get(layer)
    return row is not None and row.error is None and not profile.unreliable(layer)


def _near_zero(profile: DeviceProfile, layer: Layer) -> bool:
    """Return whether a time is below the noise. What has no spread was not measured but calculated, and has
    no noise.
    """
    row = profile.table[layer]
    if row.median_s <= 0:
        return True
    limit_s = NEAR_ZERO * row.context_s if row.context_s else NEAR_ZERO_S
    return row.iqr_s > 0 and row.median_s < max(limit_s, row.iqr_s)


def _sorted(layers: set[Layer]) -> tuple[Layer, ...]:
    return tuple(sorted(layers, key=Layer.key))


def _keys(layers: Sequence[Layer]) -> list[str]:
    return [layer.key() for layer in layers]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _pair_json(pair: Pair) -> Mapping[str, Any]:
    return {"unit": pair.layer.key(), "a_s": pair.a_s, "b_s": pair.b_s, "ratio": pair.ratio}

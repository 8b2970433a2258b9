"""From sums of table rows to whole networks: one affine fit per device, and how far off it is on networks
that it has not seen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import needs_scale
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.ops import OPS
from hw_profiles.graph.workload import Workload

# Rows that share a slope: how far a row is off in context depends on what it is and what it computes in.
KINDS = (
    "float pointwise",
    "float depthwise",
    "float other",
    "integer pointwise",
    "integer depthwise",
    "integer other",
    "quantize",
    "dequantize",
    "add_converted",
)
# Sizes of the nearest cache that are tried: what so many parts of ten of the fitted networks fit into.
CACHE_TENTHS = tuple(range(9))
LEAST_GAIN = 0.3  # of the squared error, which a cache must explain: less is chance
# Weights of the belief that a slope is 1, against networks' relative errors: the one that predicts each
# network best from the others is taken.
PRIORS = (0.01, 0.03, 0.1, 0.3, 1.0)


def kind(layer: Layer) -> str:
    """Return which of `KINDS` a row belongs to."""
    part = CLASSES[layer.op](layer)
    if part in KINDS:
        return part
    return f"{'integer' if needs_scale(layer.activation_format) else 'float'} {part}"


def _other(layer: Layer) -> str:
    return "other"


CLASSES: Consumer[Callable[[Layer], str]] = Consumer(
    "calibration",
    {
        **dict.fromkeys(OPS, _other),
        "Conv": lambda layer: (
            ("depthwise" if layer.depthwise else "pointwise") if layer.kind == "conv" else "other"
        ),
        "Add": lambda layer: "add_converted" if layer.kind == "add_converted" else "other",
        "QuantizeLinear": lambda layer: "quantize",
        "DequantizeLinear": lambda layer: "dequantize",
    },
    otherwise="its times have no class",
)


@dataclass(frozen=True)
class WholeNetwork:
    """One random network, predicted from its table rows and measured as a whole.

    Attributes:
        precision: `fp32`, `int8` (uniform) or `mixed`.
        held_out: not used to fit the calibration.
        sums_s: sum of its rows of each kind, before calibration.
        rows: number of its rows of each kind.
        measured_s, iqr_s: measured median and interquartile range, at the device's usual speed.
        quiet_share: share of its windows in which nothing else used the core.
        drift: how much slower than usual, as a share, the reference network ran beside it; what is beyond
            the plan's limit is already divided out.
        working_set_bytes: of its weights and caches, see `hw_profiles.graph.working_set`.
    """

    precision: str
    held_out: bool
    sums_s: tuple[float, ...]
    rows: tuple[int, ...]
    measured_s: float
    iqr_s: float
    quiet_share: float = 1.0
    drift: float = 0.0
    working_set_bytes: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """From rows to whole networks: one affine fit per device.

    seconds = intercept + sum over kinds of (slope * sum of the rows + per_row * number of rows)
              + per_byte * bytes of the working set beyond the nearest cache

    Per-layer sums and end-to-end time are related affinely, not identically (as in HAWQ-V3's own
    tables). A row is measured with its weights in the nearest cache, where a whole network's may not fit.

    Attributes:
        slopes, per_row_s: by kind of row.
        intercept_s: of every network.
        networks: that it was fitted to and tested on.
        cache_bytes: what the nearest cache holds; infinite where none is noticed.
        per_byte_s: for what does not fit into it.
    """

    slopes: tuple[float, ...] = (1.0,) * len(KINDS)
    per_row_s: tuple[float, ...] = (0.0,) * len(KINDS)
    intercept_s: float = 0.0
    networks: tuple[WholeNetwork, ...] = ()
    cache_bytes: float = math.inf
    per_byte_s: float = 0.0

    def predict_s(
        self,
        sums_s: NDArray[np.float64],
        rows: NDArray[np.float64],
        working_set_bytes: NDArray[np.float64] | float = 0.0,
    ) -> NDArray[np.float64]:
        """Predict (n,) whole-network seconds from (n, kinds) sums and numbers of rows, and (n,) bytes;
        infinite where a sum is.
        """
        runs = np.isfinite(sums_s)
        finite_s = np.where(runs, sums_s, 0.0) @ np.array(self.slopes)
        seconds = finite_s + rows @ np.array(self.per_row_s) + self.intercept_s
        return np.where(runs.all(axis=-1), seconds + self.spilled_s(working_set_bytes), np.inf)

    def spilled_s(self, working_set_bytes: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return (n,) seconds for what of (n,) bytes does not fit into the nearest cache."""
        return self.per_byte_s * np.maximum(0.0, np.subtract(working_set_bytes, self.cache_bytes))

    @property
    def is_plain(self) -> bool:
        """Whether rows are added up as they are."""
        return replace(self, networks=()) == Calibration()

    def row_s(self, layer: Layer, seconds: float) -> float:
        """Return what a row of `seconds` adds to a network: the sum of these, `intercept_s` and `spilled_s`
        is `predict_s`.
        """
        which = KINDS.index(kind(layer))
        return self.slopes[which] * seconds + self.per_row_s[which]

    def predict_networks_s(self, networks: Sequence[WholeNetwork]) -> NDArray[np.float64]:
        """Return (n,) predicted seconds of measured networks."""
        shape = (len(networks), len(KINDS))
        sums_s, rows = [net.sums_s for net in networks], [net.rows for net in networks]
        sizes = np.array([net.working_set_bytes for net in networks])
        return self.predict_s(np.reshape(sums_s, shape), np.reshape(rows, shape), sizes)

    def held_out_error(self, precision: str | None = None) -> dict[str, float]:
        """Return `prediction_error` on the held-out networks, of one precision or all; only `n` where there
        are none.
        """
        held_out = [net for net in self.networks if net.held_out and precision in (None, net.precision)]
        if not held_out:
            return {"n": 0}
        return prediction_error(
            self.predict_networks_s(held_out), np.array([net.measured_s for net in held_out])
        )


def prediction_error(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    """Return the errors of (n,) predicted against measured seconds: `mape`, `max_error`, `within_5`,
    `within_10` (fractions), `kendall_tau`, `n`.
    """
    error = np.abs(predicted / measured - 1)
    return {
        "mape": float(error.mean()),
        "max_error": float(error.max()),
        "within_5": float((error <= 0.05).mean()),
        "within_10": float((error <= 0.10).mean()),
        "kendall_tau": kendall_tau(predicted, measured),
        "n": len(measured),
    }


def fit_calibration(networks: Sequence[WholeNetwork]) -> Calibration:
    """Fit by ridge regression on relative error, towards slopes of 1 and nothing per row, over the networks
    that are not held out; how strongly, and how much the nearest cache holds if anything, leave-one-out
    decides.

    Raises:
        ValueError: fewer than two networks to fit.
    """
    used = [net for net in networks if not net.held_out]
    if len(used) < 2:
        raise ValueError(f"an affine fit needs at least 2 networks, got {len(used)}")
    plain = _fit(used, math.inf)
    sizes = np.array([net.working_set_bytes for net in used])
    caches = dict.fromkeys(np.quantile(sizes, np.array(CACHE_TENTHS) / 10).tolist())
    fits = [fit for cache in caches if (fit := _fit(used, cache)).calibration.per_byte_s > 0]
    best = min(fits, key=lambda fit: fit.error, default=plain)
    chosen = best if best.error < (1 - LEAST_GAIN) * plain.error else plain
    return replace(chosen.calibration, networks=tuple(networks))


@dataclass(frozen=True)
class _Fit:
    """A calibration, and its mean squared error on networks that were left out one by one."""

    calibration: Calibration
    error: float


def _fit(used: Sequence[WholeNetwork], cache_bytes: float) -> _Fit:
    """Fit with a nearest cache of a size; an infinite one is none."""
    sums, rows = np.array([net.sums_s for net in used]), np.array([net.rows for net in used])
    measured, k = np.array([net.measured_s for net in used]), len(KINDS)
    unit = measured.mean() / rows.sum(axis=1).mean()  # a typical row: makes the columns comparable
    beyond = np.maximum(0.0, np.array([net.working_set_bytes for net in used]) - cache_bytes)
    per_byte = unit / max(beyond.mean(), 1.0)
    columns = [sums, rows * unit, np.full(len(used), unit), *([beyond * per_byte] if beyond.any() else [])]
    design = np.column_stack(columns) / measured[:, None]
    error, fitted = min((_ridge(design, prior, k) for prior in PRIORS), key=lambda fit: fit[0])
    slopes, constants = fitted[:k], fitted[k : 2 * k + 1] * unit
    calibration = Calibration(
        tuple(slopes.tolist()),
        tuple(constants[:k].tolist()),
        float(constants[k]),
        cache_bytes=cache_bytes if beyond.any() else math.inf,
        per_byte_s=float(fitted[-1] * per_byte) if beyond.any() else 0.0,
    )
    return _Fit(calibration, error)


def _ridge(design: NDArray[np.float64], prior: float, k: int) -> tuple[float, NDArray[np.float64]]:
    """Fit an (n, 2 k + 1 or more) design to targets of 1: (mean squared leave-one-out error, coefficients).

    The first k are drawn to 1, the next k to 0, the others to nothing.
    """
    others = design.shape[1] - 2 * k
    expected = np.concatenate([np.ones(k), np.zeros(k + others)])
    penalty = prior**2 * np.diag(np.concatenate([np.ones(2 * k), np.full(others, 1e-12)]))
    solved = np.linalg.solve(design.T @ design + penalty, design.T)
    missed = 1 - design @ expected
    fitted = expected + solved @ missed
    leverage = np.einsum("ij,ji->i", design, solved)
    left_out = (1 - design @ fitted) / np.maximum(1 - leverage, 1e-3)
    return float(np.mean(left_out**2)), fitted


def kendall_tau(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return Kendall's tau-a of two (n,) rankings; 1.0 for a single pair of equal order, nan for fewer than
    two values.
    """
    if len(a) < 2:
        return math.nan
    upper = np.triu_indices(len(a), 1)
    return float((np.sign(a[:, None] - a)[upper] * np.sign(b[:, None] - b)[upper]).mean())


@dataclass(frozen=True)
class Validation:
    """Random networks drawn and measured after the calibration, which never sees them.

    Attributes:
        draw: how many validations came before: each draws networks of its own.
        date: when, ISO 8601.
        networks: what was measured.
    """

    draw: int
    date: str
    networks: tuple[WholeNetwork, ...]

    def error(self, calibration: Calibration, precision: str | None = None) -> dict[str, float]:
        """Return `prediction_error` of one precision or all; only `n` where there are none."""
        networks = [net for net in self.networks if precision in (None, net.precision)]
        if not networks:
            return {"n": 0}
        measured = np.array([net.measured_s for net in networks])
        return prediction_error(calibration.predict_networks_s(networks), measured)


def count_rows(workload: Workload) -> tuple[int, ...]:
    """Return the number of a network's rows of each kind."""
    return tuple(sum(kind(layer) == row_kind for layer in workload.layers) for row_kind in KINDS)


def groups(networks: Sequence[WholeNetwork]) -> dict[str, str | None]:
    """Return what errors are told of: every precision, and `all` of them (None)."""
    precisions = dict.fromkeys(("fp32", "int8", "mixed", *(net.precision for net in networks)))
    return {**{precision: precision for precision in precisions}, "all": None}

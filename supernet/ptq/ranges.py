"""Ranges that the codes of a tensor may cover, by four rules, and which of them disturbs its readers least.

A rule looks at the tensor alone and is often wrong about what matters: the range is chosen by the squared
error that it causes in the outputs of the products that read the tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import QuantParams
from supernet.formats.loading import load_activation_format
from supernet.ptq.histogram import Histogram
from supernet.ptq.product import Product

Array = NDArray[np.float32]
Range = tuple[float, float]

QUANTILES = (0.999, 0.9999, 0.99999)
CLIP_POINTS = 100  # of the rule of the least squared error
ENTROPY_POINTS = 64
LEVELS = 256
JUDGED_ROWS = 512  # of each reader
_FLOOR = 1e-12  # of probabilities and energies


@dataclass(frozen=True, eq=False)
class Reader:
    """A product that reads a tensor, and rows of it that were sampled.

    Attributes:
        rows: (groups, n, k).
    """

    product: Product
    rows: Array


def some_rows(rows: Array, most: int) -> Array:
    """Return at most about so many rows (groups, n, k), evenly from all samples."""
    return rows[:, :: max(rows.shape[1] // most, 1)]


def fake_quantize(values: Array, params: QuantParams) -> Array:
    """Return real values rounded to the codes of a tensor."""
    scale, zero = np.float32(params.scale), np.float32(params.zero_point)
    codes = np.rint(values / scale)
    np.clip(codes, -zero, params.largest - zero, out=codes)
    return np.asarray(codes * scale, np.float32)


def params_within(low: float, high: float, bounds: Range, activation: str = "int8") -> QuantParams:
    """Return scale and zero point of a range, cut to what the activation before it lets through.

    A runtime drops a ReLU or a clip whose bounds no code can leave: after rounding of scale and zero point
    all codes are inside.
    """
    low, high = max(min(low, 0.0), min(bounds[0], 0.0)), min(max(high, 0.0), max(bounds[1], 0.0))
    params = load_activation_format(activation).params(low, high)
    scale = np.float32(params.scale)
    above, below = params.largest - params.zero_point, params.zero_point
    if (above and scale * np.float32(above) > bounds[1] > 0) or (
        below and -scale * np.float32(below) < bounds[0] < 0
    ):
        inside = min(bounds[1] / above if above else np.inf, -bounds[0] / below if below else np.inf)
        scale = np.nextafter(np.float32(inside), np.float32(0))
    return QuantParams(float(scale), params.zero_point, params.largest)


def candidate_ranges(histogram: Histogram, low: float, high: float) -> dict[str, Range]:
    """Return the range of each rule by its name; `low` and `high` are least and largest value."""
    ranges = {"min-max": (low, high)}
    for share in QUANTILES:
        cut = histogram.quantile(1 - share), histogram.quantile(share)
        ranges[f"percentile {100 * share:g}"] = (max(cut[0], low), min(cut[1], high))
    ranges["least squared error"] = least_squares_range(histogram, low, high)
    ranges["entropy"] = entropy_range(histogram, low, high)
    return ranges


def least_squares_range(histogram: Histogram, low: float, high: float) -> Range:
    """Return the range whose codes are nearest to the values in the mean square: first its upper end is
    sought with the whole lower side, then the lower end; zero stays exact."""
    shares = np.arange(1, CLIP_POINTS // 2 + 1) / (CLIP_POINTS // 2)
    low, high = min(low, 0.0), max(high, 0.0)
    if high > 0:
        errors = [squared_error(histogram, low, share * high) for share in shares]
        high *= float(shares[int(np.argmin(errors))])
    if low < 0:
        errors = [squared_error(histogram, share * low, high) for share in shares]
        low *= float(shares[int(np.argmin(errors))])
    return low, high


def squared_error(histogram: Histogram, low: float, high: float) -> float:
    """Return the mean squared error of a tensor whose codes cover this range."""
    values = histogram.centres
    params = load_activation_format("int8").params(low, high)
    error = values - fake_quantize(values.astype(np.float32), params)
    inside = np.abs(error) < params.scale
    # a bin is as wide as several codes where a range is far smaller than the histogram's
    expected = np.where(inside, np.maximum(error**2, params.scale**2 / 12), error**2)
    return float(histogram.counts @ expected / max(histogram.counts.sum(), 1))


def entropy_range(histogram: Histogram, low: float, high: float) -> Range:
    """Return the range, a share of the whole one, whose 256 levels lose the least information: the
    Kullback-Leibler divergence of the clipped histogram from its levels (Migacz 2017, 8-bit inference)."""
    shares = np.linspace(1 / 8, 1, ENTROPY_POINTS)
    losses = [_divergence(histogram, share * min(low, 0.0), share * max(high, 0.0)) for share in shares]
    share = float(shares[int(np.argmin(losses))])
    return share * min(low, 0.0), share * max(high, 0.0)


def _divergence(histogram: Histogram, low: float, high: float) -> float:
    values, counts = histogram.centres, histogram.counts
    width = (histogram.high - histogram.low) / len(counts)
    inside = (values >= low - width) & (values <= high + width)
    if not inside.any() or high <= low:
        return np.inf
    kept = counts[inside].copy()
    reference = kept.copy()
    reference[0] += counts[: int(np.argmax(inside))].sum()
    reference[-1] += counts[len(inside) - int(np.argmax(inside[::-1])) :].sum()
    levels = np.minimum(((values[inside] - low) / (high - low) * LEVELS).clip(0), LEVELS - 1).astype(int)
    filled = kept > 0
    sums = np.bincount(levels, kept, LEVELS)
    spread = np.where(filled, sums[levels] / np.maximum(np.bincount(levels, filled, LEVELS)[levels], 1), 0)
    p, q = reference / max(reference.sum(), 1), spread / max(spread.sum(), 1)
    return float((p * np.log(np.maximum(p, _FLOOR) / np.maximum(q, _FLOOR))).sum())


def output_error(
    reader: Reader, rows: Array, weight: Array | None = None, bias: Array | None = None
) -> float:
    """Return the squared error of a product's outputs on other rows, with another weight and bias, over their
    variance."""
    product = reader.product
    exact = product.activated(product.sums(reader.rows) + product.bias)
    given = product.activated(product.sums(rows, weight) + (product.bias if bias is None else bias))
    return relative_error(given, exact)


def relative_error(given: Array, exact: Array) -> float:
    """Return the squared error of outputs (n, out) over the variance of the exact ones.

    The variance is that of all channels about their own means: what is the same for every input says
    nothing.
    """
    energy = float(exact.var(axis=0, dtype=np.float64).sum()) * len(exact)
    difference = (given - exact).astype(np.float32)
    return float(np.vdot(difference, difference)) / max(energy, _FLOOR)


def choose_range(
    histogram: Histogram, low: float, high: float, readers: Sequence[Reader], bounds: Range
) -> tuple[str, QuantParams, Mapping[str, float]]:
    """Return the rule whose range causes the least error, the codes of it, and the error of every rule.

    Where no product reads the tensor, the error is its own, over its mean square.
    """
    params = {
        rule: params_within(*span, bounds) for rule, span in candidate_ranges(histogram, low, high).items()
    }
    energy = max(float(histogram.counts @ histogram.centres**2) / max(histogram.counts.sum(), 1), _FLOOR)
    some = [Reader(reader.product, some_rows(reader.rows, JUDGED_ROWS)) for reader in readers]
    known: dict[QuantParams, float] = {}
    for codes in params.values():
        if codes not in known:
            known[codes] = (
                sum(output_error(reader, fake_quantize(reader.rows, codes)) for reader in some)
                if readers
                else _own_error(histogram, codes) / energy
            )
    errors = {rule: known[codes] for rule, codes in params.items()}
    rule = min(errors, key=lambda name: (errors[name], name != "min-max"))
    return rule, params[rule], errors


def _own_error(histogram: Histogram, codes: QuantParams) -> float:
    return squared_error(
        histogram, -codes.scale * codes.zero_point, codes.scale * (codes.largest - codes.zero_point)
    )

"""`Histogram`: how often which values of a tensor occur, in so many equally wide bins."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 2_048
SMALLEST_WIDTH = 1e-12  # of a range, so that a constant tensor has bins too

Counts = NDArray[np.float64]
Values = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values.

    Attributes:
        low, high: ends of the first and of the last bin.
        counts: (bins,) values in each.
    """

    low: float
    high: float
    counts: Counts

    @property
    def centres(self) -> Counts:
        """(bins,) middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5))

    def quantile(self, share: float) -> float:
        """Return the value below which this share of all lies."""
        below = np.append(0.0, np.cumsum(self.counts))
        edges = np.linspace(self.low, self.high, len(below))
        return float(np.interp(share * below[-1], below, edges))

    def widened(self, low: float, high: float) -> "Histogram":
        """Return the same counts in bins that reach from `low` to `high`, which hold the range so far."""
        if low >= self.low and high <= self.high:
            return self
        low, high = min(low, self.low), max(high, self.high)
        return Histogram(low, high, _counts(self.centres, low, high, self.counts))

    def with_values(self, values: Values) -> "Histogram":
        """Return the counts with those of further values, all of which lie within its range."""
        added = _counts(values.reshape(-1), self.low, self.high)
        return Histogram(self.low, self.high, self.counts + added)

    def merged(self, other: "Histogram") -> "Histogram":
        """Return the counts of both."""
        wide = self.widened(other.low, other.high)
        again = other.widened(wide.low, wide.high)
        return Histogram(wide.low, wide.high, wide.counts + again.counts)


def histogram_of(values: Values, low: float, high: float) -> Histogram:
    """Return the counts of values that all lie in [low, high]."""
    high = max(high, low + max(SMALLEST_WIDTH, abs(low) * 1e-6))
    return Histogram(low, high, _counts(values.reshape(-1), low, high))


def _counts(values: Values, low: float, high: float, weights: Counts | None = None) -> Counts:
    scale = BINS / (high - low)
    bins = np.minimum((values.astype(np.float32) - np.float32(low)) * np.float32(scale), BINS - 1)
    return np.bincount(np.maximum(bins, 0).astype(np.int32), weights, BINS).astype(np.float64)

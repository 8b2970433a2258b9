"""How far two fronts of accuracy and latency are apart, at equal latency and at equal accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.search.pareto import hypervolume, non_dominated

GRID = 101  # latencies, or accuracies, at which two fronts are compared
RESAMPLED = 500  # times that the test images are drawn anew

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Networks by latency (n,), best of their latency or not, and their accuracy (n,).

    Between two networks of the front accuracy is taken to change in proportion to the logarithm of latency.
    """

    latency_s: Floats
    accuracy: Floats

    def front(self) -> "Curve":
        """Only what no other is better than, fastest first; accuracy rises strictly."""
        best = np.flatnonzero(non_dominated(np.stack((self.latency_s, -self.accuracy), axis=1)))
        best = best[np.argsort(self.latency_s[best])]
        return Curve(self.latency_s[best], self.accuracy[best])


@dataclass(frozen=True)
class Apart:
    """What one front has over another where both are.

    Attributes:
        points: percentage points of accuracy at equal latency, mean over the common range, and the largest.
        times: as fast at equal accuracy, likewise (the mean in proportion).
        latencies_s, accuracies: the common ranges; NaN where there is none.
    """

    points: float
    points_most: float
    times: float
    times_most: float
    latencies_s: tuple[float, float]
    accuracies: tuple[float, float]


def apart(curve: Curve, peer: Curve) -> Apart:
    """How far `curve` is ahead of `peer`; NaN where the two have no range in common."""
    a, b = curve.front(), peer.front()
    latencies, accuracies = _common(a.latency_s, b.latency_s), _common(a.accuracy, b.accuracy)
    gained = faster = np.full(1, np.nan)
    if latencies[0] <= latencies[1]:
        x = np.linspace(np.log(latencies[0]), np.log(latencies[1]), GRID)
        gained = 100 * (
            np.interp(x, np.log(a.latency_s), a.accuracy) - np.interp(x, np.log(b.latency_s), b.accuracy)
        )
    if accuracies[0] <= accuracies[1]:
        y = np.linspace(accuracies[0], accuracies[1], GRID)
        faster = np.interp(y, b.accuracy, np.log(b.latency_s)) - np.interp(y, a.accuracy, np.log(a.latency_s))
    times = float(np.exp(faster.mean())), float(np.exp(faster.max()))
    return Apart(float(gained.mean()), float(gained.max()), *times, latencies, accuracies)


def _common(first: Floats, second: Floats) -> tuple[float, float]:
    return float(max(first.min(), second.min())), float(min(first.max(), second.max()))


def shares(curves: Sequence[Curve]) -> list[float]:
    """Hypervolume of each, as a share of the box between the worst and the best of all of them."""
    fronts = [curve.front() for curve in curves]
    latency_s = np.concatenate([front.latency_s for front in fronts])
    accuracy = np.concatenate([front.accuracy for front in fronts])
    worst = np.array([latency_s.max(), -accuracy.min()])
    box = np.prod(worst - (latency_s.min(), -accuracy.max()))
    return [
        hypervolume(np.stack((front.latency_s, -front.accuracy), axis=1), worst) / float(box)
        for front in fronts
    ]


def standard_errors(
    latency_s: Sequence[Floats], right: Sequence[NDArray[np.bool_]], rng: np.random.Generator
) -> tuple[float, float]:
    """Standard errors of `Apart.points` and of log `Apart.times` from the test images being a sample.

    Both methods see the same images, so most of what one draw of them does meets both alike.

    Args:
        latency_s: (n,) of each of two methods.
        right: (n, images) whether each of its networks is right about each image.
    """
    images = right[0].shape[1]
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLED) / images
    both = [of_one.astype(float) @ drawn.T for of_one in right]  # (n, RESAMPLED)
    gaps = [
        apart(*(Curve(seconds, accuracy[:, i]) for seconds, accuracy in zip(latency_s, both, strict=True)))
        for i in range(RESAMPLED)
    ]
    return _deviation([gap.points for gap in gaps]), _deviation([np.log(gap.times) for gap in gaps])


def _deviation(values: Sequence[float]) -> float:
    """Of those draws in which there was something to compare."""
    finite = np.array(values)[np.isfinite(values)]
    return float(finite.std()) if len(finite) > 1 else float("nan")

"""The covariance of the Gaussian process and how likely it makes what was seen, with derivatives.

Accuracy is a line through the features, plus a smooth function of the architecture, plus a *drop* that is a
line through the features of the policy whose slope may change smoothly with the architecture:

    k = CONSTANT + sum_d v_d x_d x'_d + exp(-1/2 sum_a w_a (x_a - x'_a)^2) (s + sum_p u_p x_p x'_p)

with d over all features, a over those of the architecture and p over those of the policy. Where the latter
are all zero, in fp32, the terms of the drop are exactly zero: fp32 candidates teach the architecture and
quantized ones the drop, a multi-fidelity process (Kennedy & O'Hagan 2000, doi:10.1093/biomet/87.1.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.linalg import Floats, factorise, minimise

CONSTANT = 10.0  # variance of the mean: targets are standardised, so that next to nothing is assumed of it
LEAST_NOISE = 1e-4  # variance: no target is trusted to more than 1 % of the targets' standard deviation
TYPICAL = (
    -5.0,
    0.0,
    0.0,
    -2.0,
    -1.0,
    -3.0,
)  # noise, warping, s, slopes v, lengths w, drop u
WIDTH = 3.0  # standard deviation of the normal prior of a hyper-parameter around its typical value...
WARP_WIDTH = 1.0  # ...and of the warping
LARGEST = 8.0  # logarithm of any variance
STEEPEST_WARP = 0.9  # of where the warping has its pole


@dataclass(frozen=True, eq=False)
class Kernel:
    """Hyper-parameters, spread out to the features they are of.

    Attributes:
        slopes: (d,) v, of all features.
        amplitude: s.
        lengths: (a,) w, inverse squared length scales of the first features, those of the architecture.
        drop: (d - a,) u, of the other features, those of the policy.
    """

    slopes: Floats
    amplitude: float
    lengths: Floats
    drop: Floats

    def __call__(self, x: Floats, z: Floats) -> Floats:
        """Return covariances (n, m) of features (n, d) and (m, d)."""
        linear, correlation, factor = self.parts(x, z)
        return CONSTANT + linear + correlation * factor

    def parts(self, x: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the line, the correlation of architectures, and its factor in brackets: (n, m) each."""
        a, roots = len(self.lengths), np.sqrt(self.lengths)
        p, q = x[:, :a] * roots, z[:, :a] * roots
        distance = (p * p).sum(axis=1)[:, None] + (q * q).sum(axis=1) - 2 * p @ q.T
        factor = self.amplitude + (x[:, a:] * self.drop) @ z[:, a:].T
        return (x * self.slopes) @ z.T, np.exp(np.minimum(-0.5 * distance, 0)), factor

    def variance(self, x: Floats) -> Floats:
        """Return variances (n,) of features (n, d): the diagonal of the covariances."""
        squares = x * x
        drop = squares[:, len(self.lengths) :] @ self.drop
        return np.asarray(CONSTANT + squares @ self.slopes + self.amplitude + drop)

    def gradient(self, x: Floats, weights: Floats) -> tuple[Floats, float, Floats, Floats]:
        """Return derivatives of sum(weights * k(x, x)) by the logarithms of the fields, in their order."""
        a = len(self.lengths)
        _, correlation, factor = self.parts(x, x)
        near = weights * correlation
        pull = near * factor
        within = _quadratic(x[:, :a], pull) - (x[:, :a] ** 2).T @ pull.sum(axis=1)
        return (
            self.slopes * _quadratic(x, weights),
            float(self.amplitude * near.sum()),
            self.lengths * within,
            self.drop * _quadratic(x[:, a:], near),
        )


@dataclass(frozen=True, eq=False)
class Hyper:
    """All that is learned by marginal likelihood, as one vector and back.

    Attributes:
        groups: (d,) number of each feature's group; those of a group share their hyper-parameters.
        split: a, how many features are of the architecture.
    """

    groups: NDArray[np.int64]
    split: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many hyper-parameters are the noise, the warping, the amplitude, slopes, lengths and drops."""
        first = len(np.unique(self.groups[: self.split]))
        every = len(np.unique(self.groups))
        return 1, 1, 1, every, first, every - first

    @property
    def typical(self) -> Floats:
        """(h,) where learning starts and what the prior is around."""
        return np.repeat(TYPICAL, self.sizes)

    def kernel(self, theta: Floats) -> Kernel:
        """Return the covariance that a vector (h,) means."""
        _, _, amplitude, slopes, lengths, drop = np.split(theta, np.cumsum(self.sizes)[:-1])
        a, first = self.split, len(lengths)
        return Kernel(
            np.exp(slopes[self.groups]),
            float(np.exp(amplitude[0])),
            np.exp(lengths[self.groups[:a]]),
            np.exp(drop[self.groups[a:] - first]),
        )

    def collect(self, parts: tuple[Floats, float, Floats, Floats]) -> Floats:
        """Return derivatives by the vector, without noise and warping, from those by a kernel's fields."""
        slopes, amplitude, lengths, drop = parts
        _, _, _, every, first, rest = self.sizes
        a = self.split
        return np.concatenate(
            [
                [amplitude],
                np.bincount(self.groups, slopes, every),
                np.bincount(self.groups[:a], lengths, first),
                np.bincount(self.groups[a:] - first, drop, rest),
            ]
        )


def grouped(labels: Sequence[str], split: int) -> Hyper:
    """Return hyper-parameters that features of one label share; no label is on both sides of the split."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return Hyper(np.array([numbers[label] for label in labels], np.int64), split)


def noise_of(theta: Floats) -> float:
    """Return the variance of a target around what the process says."""
    return float(np.exp(theta[0])) + LEAST_NOISE


# -- output warping --------------------------------------------------------------------------------------


def warp(targets: Floats, by: float) -> Floats:
    """Return standardised targets (n,) on a scale where effects add up (output warping): -log(1 - by t) / by,
    and t itself at 0.

    Accuracy saturates below some best value (`by` > 0), costs multiply (`by` < 0).
    """
    return np.asarray(-np.log1p(-by * targets) / by if by else targets)


def unwarp(warped: Floats, by: float) -> Floats:
    """Return the inverse of `warp`, of any value."""
    return np.asarray(-np.expm1(-by * warped) / by if by else warped)


def warp_bounds(targets: Floats) -> tuple[float, float]:
    """Return the least and the most that standardised targets (n,) can be warped by: within -1 and 1."""
    low = STEEPEST_WARP / min(float(targets.min(initial=0)), -STEEPEST_WARP)
    return low, STEEPEST_WARP / max(float(targets.max(initial=0)), STEEPEST_WARP)


def _warp_slope(targets: Floats, by: float) -> Floats:
    """Return (n,) derivatives of `warp` by `by`."""
    if abs(by) < 1e-4:
        return np.asarray(targets**2 / 2 + 2 / 3 * by * targets**3)
    return np.asarray(targets / (by * (1 - by * targets)) + np.log1p(-by * targets) / by**2)


# -- learning ------------------------------------------------------------------------------------------------


def cost(theta: Floats, hyper: Hyper, x: Floats, targets: Floats) -> tuple[float, Floats]:
    """Return the negative logarithm of marginal likelihood times prior, up to a constant, and its gradient
    (h,).

    Rasmussen & Williams 2006, equations 5.8 and 5.9; with the Jacobian of the warping, as in "Warped Gaussian
    processes" (Snelson et al. 2003).
    """
    kernel, noise, by = hyper.kernel(theta), noise_of(theta), float(theta[1])
    factor, warped = factorise(kernel(x, x), noise), warp(targets, by)
    weights = factor.inverse @ warped
    warp_density = -np.log1p(-by * targets).sum()
    away = (theta - hyper.typical) / WIDTH
    away[1] *= WIDTH / WARP_WIDTH
    value = 0.5 * (warped @ weights + factor.log_determinant) - warp_density + 0.5 * away @ away
    by_covariance = 0.5 * (factor.inverse - np.outer(weights, weights))
    gradient = away / WIDTH
    gradient[1] = away[1] / WARP_WIDTH
    gradient[0] += np.trace(by_covariance) * (noise - LEAST_NOISE)
    gradient[1] += weights @ _warp_slope(targets, by) - (targets / (1 - by * targets)).sum()
    gradient[2:] += hyper.collect(kernel.gradient(x, by_covariance))
    return float(value), gradient


def learn(hyper: Hyper, x: Floats, targets: Floats, *, steps: int) -> Floats:
    """Return the most likely hyper-parameters (h,) for features (n, d) and standardised targets (n,)."""
    bounds = [(-12.0, 2.0), warp_bounds(targets), *[(-12.0, LARGEST)] * (len(hyper.typical) - 2)]
    theta, _ = minimise(lambda theta: cost(theta, hyper, x, targets), hyper.typical, bounds, steps)
    return theta


def _quadratic(x: Floats, weights: Floats) -> Floats:
    """Return (d,) the sum over i and j of weights_ij x_id x_jd."""
    return np.asarray((x * (weights @ x)).sum(axis=0))

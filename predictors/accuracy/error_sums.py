"""How far a policy moves a network's answers, from the errors of others as vectors.

What each part of a policy does to the answers is a vector e_j, to leading order, and a policy's error is
their sum. That e_j is unknown, of an expected squared length theta_j and any direction, makes errors of
policies a Gaussian process of many outputs: two policies have in common what they both round,

    E <E_a, E_b> = sum of theta_j over what a and b both round,

and each has something of its own besides, a share of its squared length, where errors do not just add up.
All that is ever needed of the vectors are their inner products. Log theta and that share are the maximum of
a posterior whose likelihood is Wishart's, of as many degrees of freedom as there are directions in which
answers err independently; an unseen policy's squared length is then that of its expected error plus what is
not known of it (Rasmussen and Williams 2006, section 2.2).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Rounded = NDArray[np.bool_]  # (n, d) what each policy rounds
FREEDOM = 30.0  # directions in which answers err independently
OWN_SHARE, OWN_SPREAD = 0.05, 1.5  # of a policy's squared length; standard deviation of its logarithm
NOTHING = 1e-7  # squared length below which an error is rounding of the arithmetic
STEPS = 150  # of the optimiser
MOST = 60.0  # logarithm of a part, either way
NOISE = 0.05  # of a predicted logarithm, at least


@dataclass(frozen=True, eq=False)
class ErrorSum:
    """What parts of errors are, and the errors that they were learned from.

    Attributes:
        rounded: (n, d) by what was learned from.
        scale: (n,) one over the length of each error.
        lengths: (d,) expected squared length of every part.
        own: share of a policy's squared length that nothing else says anything of.
        products: (n, n) cosines of the errors.
        inverse: (n, n) of their expected cosines.
        sizes: (e + 1,) of the effects that this is the optimum of.
        offset: from logarithms of squared lengths to those of divergences.
    """

    rounded: Floats
    scale: Floats
    lengths: Floats
    own: float
    products: Floats
    inverse: Floats
    sizes: Floats
    offset: float = 0.0

    def logs(self, rounded: Rounded) -> Floats:
        """Return (n,) logarithms of divergences of policies (n, d)."""
        known, unknown = self._squared(rounded)
        return np.asarray(np.log(known + unknown) + self.offset, np.float64)

    def spread(self, rounded: Rounded) -> Floats:
        """Return (n,) their standard deviations."""
        return _spread(*self._squared(rounded))

    def _squared(self, rounded: Rounded) -> tuple[Floats, Floats]:
        """Return (n,) squared length of the expected errors, and what is expected beside it."""
        rows = rounded * self.lengths
        whole = rows.sum(axis=1)
        common = (rows @ self.rounded.T) * self.scale
        weights = common @ self.inverse
        known = np.einsum("ij,ij->i", weights @ self.products, weights)
        left = np.maximum(whole - np.einsum("ij,ij->i", weights, common), 0.0)
        return np.maximum(known, 0.0), left + self.own * whole + NOTHING


def fit_errors(
    rounded: Rounded, errors: Floats, effects: Floats, *, near: ErrorSum | None = None, steps: int = STEPS
) -> ErrorSum:
    """Return the likeliest parts of errors (n, k) of policies (n, d), each of which rounds something.

    Args:
        effects: (d, e) how independent unit normal effects add up to the logarithm of each part.
        near: what the optimiser begins with, learned from nearly the same.
        steps: of the optimiser, at most.
    """
    rows = rounded.astype(np.float64)
    products = errors @ errors.T
    squared = np.maximum(np.diag(products), NOTHING)
    scale = 1 / np.sqrt(squared)
    cosines = products * scale[:, None] * scale
    start = float(np.median(np.log(squared) - np.log(rows.sum(axis=1))))

    def loss(size: Floats) -> tuple[float, Floats]:
        value, slopes, slope = _unlikeliness(rows, scale, cosines, *_unpacked(size, start, effects))
        prior = 0.5 * float(size @ size)
        return value + prior, np.append(effects.T @ slopes, slope * OWN_SPREAD) + size

    first = np.zeros(effects.shape[1] + 1) if near is None else near.sizes
    optimum = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    sizes = np.asarray(optimum.x, np.float64)
    lengths, own = _unpacked(sizes, start, effects)
    expected = _expected(rows, scale, lengths, own)
    inverse = cho_solve(cho_factor(expected), np.eye(len(rows)))
    return ErrorSum(rows, scale, lengths, own, cosines, (inverse + inverse.T) / 2, sizes)


def _unpacked(size: Floats, start: float, effects: Floats) -> tuple[Floats, float]:
    """Return expected squared lengths (d,) of parts, and the share that policies have of their own."""
    lengths = np.exp(np.clip(start + effects @ size[:-1], -MOST, MOST))
    return lengths, OWN_SHARE * float(np.exp(np.clip(OWN_SPREAD * size[-1], -MOST, MOST)))


def _expected(rows: Floats, scale: Floats, lengths: Floats, own: float) -> Floats:
    """Return (n, n) the cosines that are expected of errors."""
    scaled = rows * scale[:, None]
    expected = (scaled * lengths) @ scaled.T
    expected[np.diag_indices(len(rows))] += (own * (rows @ lengths) + NOTHING) * scale**2
    return np.asarray(expected, np.float64)


def _unlikeliness(
    rows: Floats, scale: Floats, cosines: Floats, lengths: Floats, own: float
) -> tuple[float, Floats, float]:
    """Return what is minus Wishart's logarithm, and its slopes by the logarithms of parts (d,) and share."""
    factor = cho_factor(_expected(rows, scale, lengths, own), lower=True)
    inverse = cho_solve(factor, np.eye(len(rows)))
    explained = inverse @ cosines
    value = FREEDOM * (float(np.log(np.diag(factor[0])).sum()) + 0.5 * float(np.trace(explained)))
    slope = 0.5 * FREEDOM * (inverse - explained @ inverse)
    scaled = rows * scale[:, None]
    alone = np.diag(slope) * scale**2
    slopes = np.einsum("ij,ij->j", scaled, slope @ scaled) + own * (alone @ rows)
    return value, slopes * lengths, own * float(alone @ (rows @ lengths))


def _spread(known: Floats, unknown: Floats) -> Floats:
    """Return (n,) standard deviations of logarithms of squared lengths: of an expected vector plus a random
    one with so many degrees of freedom.
    """
    variance = (4 * known * unknown + 2 * unknown**2) / FREEDOM
    return np.asarray(np.sqrt(variance / (known + unknown) ** 2 + NOISE**2), np.float64)

"""How far the outputs of one network are from those of another, sample by sample."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from supernet.tasks.output_roles import OutputRole, Role, squeezed

Array = NDArray[Any]
PerSample = NDArray[np.float64]  # (n,)

BLOCK = 2_000_000  # numbers that are looked at together
LEAST_PROBABILITY = 1e-12  # that a network may give what the original thinks possible
MOST_NATS = 700.0  # that a score may lie below the largest
MOST_DB = 200.0  # of outputs that are equal to the last bit
NOTHING = -1  # chosen by what is not a number


def as_steps(array: Array, output: OutputRole) -> Array:
    """Return (n, steps, classes) of an output of classes, a view."""
    values = squeezed(array)
    if output.axis != -1:
        values = np.moveaxis(values, output.axis + 1, -1)
    return values.reshape(len(values), -1, values.shape[-1])


def log_probabilities(values: Array, role: Role) -> NDArray[np.floating]:
    """Return (..., classes) logarithms of probabilities, of class scores up to a constant."""
    if role is Role.PROBABILITIES:
        return np.asarray(np.log(np.clip(_reals(values), LEAST_PROBABILITY, None)))
    scores = values.astype(np.float64)
    return np.asarray(scores - scores.max(axis=-1, keepdims=True))


def _reals(values: Array) -> NDArray[np.floating]:
    """Return numbers of at least 32 bits: logarithms of those are exact enough, and twice as fast."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def divergence(values: Array, original: Array, output: OutputRole) -> PerSample:
    """Return (n,) the Kullback-Leibler divergence of the probabilities of `values` from the original's, in
    nats: sum of p log(p / q), mean over steps; infinite where something is not a number.

    Of independent probabilities it is the sum over all of them.
    """
    if output.role is Role.CHANCES:
        return _divergence_of_chances(values, original)
    steps, original_steps = as_steps(values, output), as_steps(original, output)
    block = max(1, BLOCK // max(1, original_steps[0].size))
    between = _between_probabilities if output.role is Role.PROBABILITIES else _between_scores
    with np.errstate(invalid="ignore", over="ignore"):
        parts = [
            between(steps[start : start + block], original_steps[start : start + block])
            for start in range(0, len(original_steps), block)
        ]
    return _finite(np.concatenate(parts).mean(axis=-1))


def _between_probabilities(values: Array, original: Array) -> PerSample:
    """Return (n, steps) the divergence of probabilities: what they miss to a sum of one, by rounding, counts
    (the generalised divergence, which is never negative).
    """
    log_ratio = log_probabilities(original, Role.PROBABILITIES) - log_probabilities(
        values, Role.PROBABILITIES
    )
    p, q = _reals(original), _reals(values)
    sums = np.einsum("ntc,ntc->nt", p, log_ratio, dtype=np.float64, casting="same_kind")
    return np.asarray(sums - p.sum(axis=-1, dtype=np.float64) + q.sum(axis=-1, dtype=np.float64))


def _between_scores(values: Array, original: Array) -> PerSample:
    """Return (n, steps) the divergence of the softmax of scores."""
    a, b = log_probabilities(original, Role.SCORES), log_probabilities(values, Role.SCORES)
    weights, others = np.exp(a), np.exp(b).sum(axis=-1)
    total = weights.sum(axis=-1)
    differences = np.where(weights > 0, a - np.maximum(b, -MOST_NATS), 0.0)
    return np.asarray((weights * differences).sum(axis=-1) / total - np.log(total) + np.log(others))


def _divergence_of_chances(values: Array, original: Array) -> PerSample:
    q, p = (
        np.clip(squeezed(array).astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        for array in (values, original)
    )
    terms = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return _finite(terms.reshape(len(p), -1).sum(axis=-1))


def _finite(sums: PerSample) -> PerSample:
    return np.asarray(np.where(np.isfinite(sums), np.maximum(sums, 0.0), np.inf))


def choices(array: Array, output: OutputRole) -> NDArray[np.int64]:
    """Return (n, steps) what an output decides: the likeliest class, above one half or not, or itself;
    `NOTHING` where it is not a number.
    """
    if output.role is Role.DECISIONS:
        values = squeezed(array)
        return values.reshape(len(values), -1).astype(np.int64)
    if output.role is Role.CHANCES:
        values = squeezed(array).reshape(len(array), -1)
        return np.where(np.isnan(values), NOTHING, values > 0.5).astype(np.int64)
    steps = as_steps(array, output)
    chosen = steps.argmax(axis=-1)
    return np.asarray(np.where(np.isnan(steps).any(axis=-1), NOTHING, chosen))


def same_choices(decisions: NDArray[np.int64], original: NDArray[np.int64], output: OutputRole) -> PerSample:
    """Return (n,) 1 where an output decides what the original does, else 0: for a sequence all it spells,
    for independent probabilities all of them; for a map, or several decisions, the share of its places.
    """
    if output.sequence:
        pairs = zip(decisions, original, strict=True)
        return np.array([spelled(a, output.blank) == spelled(b, output.blank) for a, b in pairs], np.float64)
    same = decisions == original
    return np.asarray(same.all(axis=1) if output.role is Role.CHANCES else same.mean(axis=1), np.float64)


def spelled(steps: NDArray[np.int64], blank: int | None) -> bytes:
    """Return what classes (t,) spell, as something to compare: with a blank, repeated ones once, and without
    the blank (Graves et al. 2006, best path decoding); else as they are.

    >>> spelled(np.array([0, 7, 7, 0, 7]), 0) == spelled(np.array([7, 0, 0, 7, 7]), 0)
    True
    """
    if blank is None:
        return steps.tobytes()
    kept = np.r_[True, steps[1:] != steps[:-1]] & (steps != blank)
    return bytes(steps[kept].tobytes())


def signal_to_noise(values: Array, original: Array) -> float:
    """Return 10 log10 of the energy of the original's output over that of the difference, over all samples,
    in dB; at most `MOST_DB`, and minus infinity where something is not a number.
    """
    signal = noise = 0.0
    for sample, reference in zip(values, original, strict=True):
        signal += _energy(np.where(np.isfinite(reference), _reals(reference), 0))
        noise += _noise(_reals(sample), _reals(reference))
    if not np.isfinite(noise):
        return -np.inf
    if noise == 0:
        return MOST_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -MOST_DB, MOST_DB))


def _noise(values: NDArray[np.floating], original: NDArray[np.floating]) -> float:
    """Return the energy of the difference; infinities that both have, such as those of a mask, are equal."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = values - original
        if np.isfinite(difference).all():
            return _energy(difference)
        return _energy(np.where(values == original, 0, difference))


def _energy(values: NDArray[np.floating]) -> float:
    return float(np.einsum("i,i->", values.ravel(), values.ravel(), dtype=np.float64, casting="same_kind"))

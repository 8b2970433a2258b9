"""How far the outputs of one network are from those of another, sample by sample."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from supernet.tasks.output_roles import OutputRole, Role, squeezed

Array = NDArray[Any]
PerSample = NDArray[np.float64]  # (n,)

BLOCK = 2_000_000  # numbers that are looked at together
LEAST_PROBABILITY = 1e-12  # that a network may give what the original thinks possible
MOST_DB = 200.0  # of outputs that are equal to the last bit
NOTHING = -1  # chosen by what is not a number


def as_steps(array: Array, output: OutputRole) -> Array:
    """Return (n, steps, classes) of an output of classes, a view."""
    values = squeezed(array)
    if output.axis != -1:
        values = np.moveaxis(values, output.axis + 1, -1)
    return values.reshape(len(values), -1, values.shape[-1])


def log_probabilities(values: Array, role: Role) -> NDArray[np.float64]:
    """Return (..., classes) logarithms of probabilities."""
    numbers = values.astype(np.float64)
    if role is Role.PROBABILITIES:
        numbers = np.log(np.clip(numbers, LEAST_PROBABILITY, None))
    shifted = numbers - numbers.max(axis=-1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.maximum(logs, np.log(LEAST_PROBABILITY))


def divergence(values: Array, original: Array, output: OutputRole) -> PerSample:
    """Return (n,) the Kullback-Leibler divergence of the probabilities of `values` from the original's, in
    nats: sum of p log(p / q), mean over steps; infinite where something is not a number.

    Of independent probabilities it is the sum over all of them.
    """
    if output.role is Role.CHANCES:
        return _divergence_of_chances(values, original)
    mine, theirs = as_steps(values, output), as_steps(original, output)
    blocks = max(1, BLOCK // max(1, theirs[0].size))
    parts = [
        _block_divergence(mine[start : start + blocks], theirs[start : start + blocks], output.role)
        for start in range(0, len(theirs), blocks)
    ]
    return np.concatenate(parts)


def _block_divergence(mine: Array, theirs: Array, role: Role) -> PerSample:
    with np.errstate(invalid="ignore", over="ignore"):
        log_p, log_q = log_probabilities(theirs, role), log_probabilities(mine, role)
        sums = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean(axis=-1)
    return np.asarray(np.where(np.isfinite(sums), np.maximum(sums, 0.0), np.inf))


def _divergence_of_chances(values: Array, original: Array) -> PerSample:
    q, p = (
        np.clip(squeezed(array).astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        for array in (values, original)
    )
    terms = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    sums = terms.reshape(len(p), -1).sum(axis=-1)
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


def same_choices(mine: NDArray[np.int64], theirs: NDArray[np.int64], output: OutputRole) -> PerSample:
    """Return (n,) 1 where an output decides what the original does, else 0: for a sequence all it spells,
    for independent probabilities all of them; for a map, or several decisions, the share of its places.
    """
    if output.sequence:
        pairs = zip(mine, theirs, strict=True)
        return np.array([spelled(a, output.blank) == spelled(b, output.blank) for a, b in pairs], np.float64)
    same = mine == theirs
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
    for mine, theirs in zip(values, original, strict=True):
        a, b = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
        signal += float(np.vdot(b, b))
        noise += float(np.vdot(a - b, a - b))
    if not np.isfinite(noise):
        return -np.inf
    if noise == 0:
        return MOST_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -MOST_DB, MOST_DB))

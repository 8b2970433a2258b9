"""Errors of a network's answers as short vectors whose squared lengths are divergences.

What one change of a network does to its answers and what another does add up as vectors, where their lengths
do not: errors strengthen or cancel each other. Class probabilities are embedded as their square roots
(Hellinger distances: half of a Kullback-Leibler divergence to leading order, and bounded), anything else as
it is over the original's energy. Long vectors are cut short by a random projection that keeps inner products
(count sketch: Charikar, Chen and Farach-Colton 2002): each number, its sign at random, is added to one of
`LENGTH`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supernet.tasks.divergence import as_steps
from supernet.tasks.output_roles import OutputRole, Role, squeezed

Floats = NDArray[np.float32]
Answers = Mapping[str, Any]  # by output: (n, ...) array, or n arrays of different sizes

LENGTH = 1021  # of a vector: a prime, so that no class of every example is added to the same number
_LEAST = 1e-30


@dataclass(frozen=True, eq=False)
class EmbeddedOutput:
    """What the original says at one output, as errors are counted from it.

    Attributes:
        output: which one.
        answers: (m,) embedded.
        scale: of errors, so that squared ones add up to a divergence.
        signs: (m,) of each number; None where there are few.
    """

    output: OutputRole
    answers: Floats
    scale: float
    signs: NDArray[np.int8] | None

    def error(self, answers: Any) -> Floats | None:
        """Return the vector of the error of other answers; None where they are of another size."""
        embedded = _embedded(answers, self.output)
        if embedded is None or embedded.shape != self.answers.shape:
            return None
        error = np.nan_to_num(embedded - self.answers, nan=0.0, posinf=0.0, neginf=0.0)
        return np.float32(self.scale) * (error if self.signs is None else _short(error * self.signs))


@dataclass(frozen=True, eq=False)
class ErrorVectors:
    """How answers are compared with those of an original.

    Attributes:
        outputs: that are compared.
    """

    outputs: tuple[EmbeddedOutput, ...]

    def __call__(self, answers: Answers) -> Floats | None:
        """Return the vector (k,) of the error of answers; None where they are of another size."""
        errors = [embedded.error(answers[embedded.output.name]) for embedded in self.outputs]
        whole = [error for error in errors if error is not None]
        return np.concatenate(whole) if len(whole) == len(errors) else None


def error_vectors(
    outputs: Sequence[OutputRole], original: Answers, *, rng: np.random.Generator
) -> ErrorVectors | None:
    """Return how answers are compared with an original's; None where they cannot be: decisions, or things
    that each example has another number of.

    Args:
        outputs: of the network; where some are of probabilities only those count, as in a divergence.
        rng: signs of the projection.
    """
    numbers = [output for output in outputs if output.role is not Role.DECISIONS]
    compared = [output for output in numbers if output.role is not Role.VALUES] or numbers
    embedded = []
    for output in compared:
        answers = _embedded(original[output.name], output)
        if answers is None:
            return None
        signs = rng.choice(np.array([-1, 1], np.int8), answers.size) if answers.size > LENGTH else None
        scale = _scale(answers, output, len(original[output.name]))
        embedded.append(EmbeddedOutput(output, answers, scale, signs))
    return ErrorVectors(tuple(embedded)) if embedded else None


def _embedded(answers: Any, output: OutputRole) -> Floats | None:
    """Return (m,) answers as what errors of are compared; None where examples differ in size."""
    if not isinstance(answers, np.ndarray) or answers.dtype == object:
        return None
    if output.role is Role.VALUES:
        return answers.astype(np.float32, copy=False).ravel()
    if output.role is Role.CHANCES:
        chances = np.clip(squeezed(answers).astype(np.float32, copy=False), 0, 1)
        return np.sqrt(np.stack([chances, 1 - chances])).ravel()
    steps = as_steps(answers, output).astype(np.float32, copy=False)
    if output.role is Role.SCORES:
        steps = np.exp(steps - steps.max(axis=-1, keepdims=True))
        steps /= steps.sum(axis=-1, keepdims=True)
    return np.asarray(np.sqrt(np.maximum(steps, 0)).ravel(), np.float32)


def _scale(answers: Floats, output: OutputRole, examples: int) -> float:
    """Return what makes squared errors a divergence: of probabilities in nats, mean over examples and steps;
    of values noise over signal.
    """
    if output.role is Role.VALUES:
        return 1 / max(float(np.linalg.norm(answers.astype(np.float64))), _LEAST)
    return float(np.sqrt(2 / (examples * (output.steps if output.classified else 1))))


def _short(error: Floats) -> Floats:
    """Return (`LENGTH`,) sums of every so many numbers."""
    whole = error.size // LENGTH * LENGTH
    short = error[:whole].reshape(-1, LENGTH).sum(axis=0)
    short[: error.size - whole] += error[whole:]
    return np.asarray(short, np.float32)

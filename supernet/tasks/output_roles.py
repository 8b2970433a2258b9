"""What the outputs of somebody's network are: recognised from what it says of samples."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LOOKED_AT = 4_000_000  # numbers of an output, at most
SUM_TOLERANCE = 1e-2  # of probabilities in float16
UNIFORM = 0.01  # of the way from all classes alike to one for sure: below it nothing is told apart
SURE = 0.3  # mean probability of the likeliest class, below which steps of a sequence are features
FEWEST_CLASSES = 8  # of a sequence without softmax: below, its last axis is coordinates
UNEQUAL = 10.0  # times the spread of the median class: beyond it columns have different units
MASKED = 1e6  # that scores are at most, and at least
MOST_STEPS = 1_024  # of a sequence that is compared as a whole; anything longer is a map
BLANK_SHARE = 0.3  # of the steps of a sequence that a blank takes


class Role(Enum):
    """What the numbers of an output mean."""

    SCORES = "class scores"  # logarithms of probabilities, up to a constant
    PROBABILITIES = "class probabilities"
    CHANCES = "independent probabilities"
    DECISIONS = "decisions"
    VALUES = "values"


@dataclass(frozen=True)
class OutputRole:
    """What one output is.

    Attributes:
        name: of the output.
        role: what its numbers mean.
        axis: of the classes, counted without the axes of samples and of a batch of one.
        classes: how many there are; 0 where it is no output of classes.
        steps: how many times it chooses for one sample.
        blank: class that says nothing at a step of a sequence (connectionist temporal classification); None
            where there is none.
    """

    name: str
    role: Role
    axis: int = -1
    classes: int = 0
    steps: int = 1
    blank: int | None = None

    @property
    def classified(self) -> bool:
        """Whether it has one of several classes at every step."""
        return self.role in (Role.SCORES, Role.PROBABILITIES)

    @property
    def sequence(self) -> bool:
        """Whether what it says is a short sequence of classes, right or wrong as a whole."""
        return self.classified and 1 < self.steps <= MOST_STEPS and self.axis == -1

    def __str__(self) -> str:
        """Return it in a few words."""
        what = self.role.value
        if self.classified:
            what = f"{self.classes:,} {what}"
        if self.sequence:
            blank = "" if self.blank is None else f", blank {self.blank}"
            what += f" at each of {self.steps:,} steps{blank}"
        elif self.classified and self.steps > 1:
            what += f" at each of {self.steps:,} places"
        return f"{self.name}: {what}"


def squeezed(array: Array) -> Array:
    """Return (n, ...) outputs without the axes of a batch of one, of a single step, and of a single place.

    >>> [squeezed(np.zeros(s)).shape for s in ((8, 1, 5), (8, 1, 7, 5), (8, 1, 5, 1, 1), (8, 1, 1))]
    [(8, 5), (8, 7, 5), (8, 5), (8, 1)]
    """
    while array.ndim >= 3 and array.shape[1] == 1:
        array = array[:, 0]
    return array[..., 0, 0] if array.ndim == 4 and array.shape[2:] == (1, 1) else array


def recognise_output(name: str, array: Array, *, classes: int = 0) -> OutputRole:
    """Return what an output is, by what the original says of samples.

    Probabilities are recognised by their sum, other class scores by what distinguishes them from features:
    they tell samples apart, are not of unit length, not rectified, and of one scale.

    Args:
        array: (n, ...) of n samples.
        classes: of right answers, where there are some: an output of as many numbers is of class scores.
    """
    values = squeezed(array)
    if values.dtype.kind not in "f":
        return OutputRole(name, Role.DECISIONS, steps=int(np.prod(values.shape[1:])))
    values = values[: max(1, LOOKED_AT // max(1, values[0].size))].astype(np.float64)
    values = np.clip(values, -MASKED, MASKED)  # of masks, infinite
    role, axis = _role(values, classes)
    if role not in (Role.SCORES, Role.PROBABILITIES):
        return OutputRole(name, role, steps=int(np.prod(values.shape[1:])))
    count = values.shape[axis if axis == -1 else axis + 1]
    steps = values[0].size // count
    made = OutputRole(name, role, axis, count, steps)
    return OutputRole(name, role, axis, count, steps, _blank(values, count)) if made.sequence else made


def _role(values: Array, classes: int) -> tuple[Role, int]:
    if values.ndim < 2 or not values.size:
        return Role.VALUES, -1
    if values.min() >= -SUM_TOLERANCE and values.max() <= 1 + SUM_TOLERANCE:
        return _role_of_shares(values)
    if values.shape[-1] < 2:
        return Role.VALUES, -1
    if values.ndim == 2 and classes == values.shape[1]:
        return Role.SCORES, -1
    probability = _softmax(values)
    if values.max() <= SUM_TOLERANCE and np.abs(np.log(np.exp(values).sum(axis=-1))).max() < SUM_TOLERANCE:
        return Role.SCORES, -1
    told_apart = (_scores_of_samples if values.ndim == 2 else _scores_of_steps)(values, probability)
    return (Role.SCORES if told_apart else Role.VALUES), -1


def _role_of_shares(values: Array) -> tuple[Role, int]:
    for axis in (-1, 0):
        place = axis if axis == -1 else 1
        if values.shape[place] < 2 or (axis == 0 and values.ndim < 4):
            continue
        if np.abs(values.sum(axis=place) - 1).max() < SUM_TOLERANCE:
            return Role.PROBABILITIES, axis
    sure = ((values < 0.1) | (values > 0.9)).mean() > 0.5
    single = values.ndim == 2 and values.shape[1] == 1 and values.min() < 0.5 < values.max()
    return (Role.CHANCES if single or (values.ndim == 2 and sure) else Role.VALUES), -1


def _softmax(values: Array) -> Array:
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _scores_of_samples(values: Array, probability: Array) -> bool:
    """Return whether (n, c) are class scores, not features or measures."""
    count = values.shape[1]
    unit = np.abs(np.linalg.norm(values, axis=1) - 1).max() < SUM_TOLERANCE
    rectified = values.min() >= 0 and (values == 0).mean() > 0.01
    one_sided = len(values) >= 8 and len(np.unique(values.argmax(axis=1))) == 1
    sureness = (probability.max(axis=1).mean() - 1 / count) / (1 - 1 / count)
    return not (unit or rectified or one_sided or sureness < UNIFORM)


def _scores_of_steps(values: Array, probability: Array) -> bool:
    """Return whether (n, t, c) are class scores of every step."""
    if values.ndim != 3 or values.shape[-1] < FEWEST_CLASSES:
        return False
    spreads = values.std(axis=(0, 1))
    equal = spreads.max() <= UNEQUAL * max(np.median(spreads), 1e-12)
    return bool(equal and probability.max(axis=-1).mean() > SURE and np.ptp(values.argmax(axis=-1)) > 0)


def _blank(values: Array, count: int) -> int | None:
    """Return the first or last class where it is the commonest by far."""
    chosen = np.bincount(values.argmax(axis=-1).ravel(), minlength=count)
    commonest = int(chosen.argmax())
    often = chosen[commonest] > BLANK_SHARE * chosen.sum()
    return commonest if often and commonest in (0, count - 1) else None

"""Divides samples into disjoint ones: to calibrate on, to choose policies by, and to judge the front by."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from supernet.data.image_samples import is_judged
from supernet.data.samples import SampleParts, Samples

LEAST = 8
CALIBRATION, CHOOSING = 32, 256  # at most; fewer where there are few
SHARES = (0.25, 0.375)  # of few samples, for calibrating and choosing
MOST_IN_GROUP = 0.8  # of all samples: a group that is nearly all of them divides nothing

Rows = NDArray[np.int64]


def split_samples(
    samples: Samples,
    *,
    rng: np.random.Generator,
    calibration: int = CALIBRATION,
    choosing: int = CHOOSING,
) -> SampleParts:
    """Return disjoint parts of the samples, each in random order, so that its first ones stand for all.

    Judged is what its publisher keeps for that, in a folder `test` or `val` beside others; else about
    three eighths, whole groups of files (a folder, or a common name before a number: crops of one photograph)
    where there are no labels and several groups.

    Args:
        calibration, choosing: samples at most; what is left is judged by, unless it lies in the same group.

    Raises:
        TrilobitError: fewer than `LEAST` samples.
    """
    count = len(samples)
    if count < LEAST:
        raise TrilobitError(f"{count} samples: at least {LEAST} are needed to calibrate, choose and judge by")
    order = rng.permutation(count)
    judged = _published(samples.names) if samples.names else None
    if judged is None and samples.labels is None and samples.names:
        judged = _grouped(samples.names, rng)
    if judged is None:
        sizes = _sizes(count, calibration, choosing)
        first, second, rest = np.split(order, np.cumsum(sizes))
    else:
        others = order[~judged[order]]
        few = min(calibration, max(1, round(0.4 * len(others))))
        first, second, rest = others[:few], others[few : few + choosing], order[judged[order]]
    return SampleParts(samples[first], samples[second], samples[rest])


def _sizes(count: int, calibration: int, choosing: int) -> tuple[int, int]:
    return tuple(  # type: ignore[return-value]
        min(most, max(1, int(share * count)))
        for most, share in zip((calibration, choosing), SHARES, strict=True)
    )


def _published(names: Sequence[str]) -> NDArray[np.bool_] | None:
    """Return which files their publisher keeps to judge by; None where that divides nothing."""
    return _dividing(np.array([is_judged(name) for name in names]))


def _dividing(judged: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    others = len(judged) - judged.sum()
    return judged if judged.sum() >= 2 and others >= 4 else None


def _grouped(names: Sequence[str], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """Return files to judge by, whole groups of about the wanted share; None where there are none."""
    groups, member = np.unique([group_of(name) for name in names], return_inverse=True)
    sizes = np.bincount(member)
    if len(groups) < 2 or len(groups) > len(names) / 2 or sizes.max() > MOST_IN_GROUP * len(names):
        return None
    target_count = (1 - sum(SHARES)) * len(names)
    judged = np.zeros(len(groups), bool)
    for group in rng.permutation(len(groups)):
        if sizes[judged].sum() + sizes[group] / 2 <= target_count or not judged.any():
            judged[group] = True
    return _dividing(judged[member])


def group_of(name: str) -> str:
    """Return what files that belong together have in common: folder and name before a last number.

    >>> group_of("photos/china-012.png"), group_of("photos/0001.png"), group_of("lines/text_3_7.png")
    ('photos/china', 'photos/', 'lines/text_3')
    """
    path = PurePosixPath(name)
    return f"{path.parent}/{re.sub(r'[-_. ]*[0-9]+$', '', path.stem)}"

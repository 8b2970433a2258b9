"""Images in three disjoint parts, every class divided alike."""

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from supernet.data.images import Images, Labels, Source

SPLIT = (0.6, 0.2, 0.2)  # train, validation, test where the source has one part only
VALIDATION_SHARE = 0.1  # of the training part where the source has a test part: 5,000 of CIFAR-10's 50,000


def three_parts(read: Source, source: str, seed: int) -> dict[str, Images]:
    """Return train, validation and test: the publisher's, and those that are missing split off the training
    part.
    """
    missing = [part for part in ("validation", "test") if part not in read.parts]
    shares = SPLIT if len(missing) == 2 else (1 - VALIDATION_SHARE, *(VALIDATION_SHARE for _ in missing))
    train = read.parts["train"]
    fewest = np.bincount(train.labels, minlength=len(read.classes))
    if fewest.min() < len(shares):
        name = read.classes[int(fewest.argmin())]
        raise TrilobitError(
            f"{source}: class {name!r} has {fewest.min()} training images, fewer than {len(shares)}; add some"
        )
    pieces = stratified_split(train.labels, shares, seed=seed)
    split_off = {part: train[rows] for part, rows in zip(("train", *missing), pieces, strict=True)}
    return {**read.parts, **split_off}


def stratified_split(labels: Labels, shares: tuple[float, ...], *, seed: int) -> tuple[Labels, ...]:
    """Return ascending disjoint row indices, one array per share, together all rows; every class is divided
    alike.

    Every part but the first gets the rounded share of each class, at least one image; the first the rest.
    """
    parts: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    for label in np.unique(labels):
        rows = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        sizes = [max(1, round(share * len(rows))) for share in shares[1:]]
        pieces = np.split(rows, np.cumsum(sizes))
        for part, piece in zip(parts, (pieces[-1], *pieces[:-1]), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(part)) for part in parts)

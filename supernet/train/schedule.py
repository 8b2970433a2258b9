"""How a learning rate rises and falls, and how large images are meanwhile."""

import math
from collections.abc import Callable, Mapping, Sequence

# share of the way down, in 0..1 -> factor of the peak
DECAYS: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "linear": lambda share: 1.0 - share,
}


def warmed(step: float, steps: int, warmup: float, decay: str) -> float:
    """Return the factor of the peak learning rate at `step` of `steps`: linear warm-up for the share
    `warmup` of them, then down to 0 by the name of `decay`.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return DECAYS[decay]((step - rising) / max(1, steps - rising))


def warmed_cosine(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the peak learning rate at `step` of `steps`: linear warm-up for the share
    `warmup` of them, then half a cosine.
    """
    return warmed(step, steps, warmup, "cosine")


def resolution_limit(resolutions: Sequence[int], first: int, full_at: float, done: float) -> int:
    """Return the largest resolution to train at when the share `done` of training is over.

    It begins at the largest of `resolutions` (ascending) that `first` allows, climbs by those that there are,
    each for as long, and is the largest one from the share `full_at` on.

    >>> [resolution_limit((16, 20, 24, 32), 20, 0.5, done) for done in (0, 0.2, 0.3, 0.5, 1)]
    [20, 20, 24, 32, 32]
    """
    start = max((r for r in resolutions if r <= first), default=resolutions[0])
    climbed = [r for r in resolutions if r >= start]
    if done >= full_at:
        return climbed[-1]
    return climbed[int(done / full_at * (len(climbed) - 1))]

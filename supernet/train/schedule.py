"""How a learning rate rises and falls."""

import math


def warmed_cosine(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the peak learning rate at `step` of `steps`: linear warm-up for the share
    `warmup` of them, then half a cosine.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

"""Which subnets one training step runs: the sandwich rule."""

from typing import Any

import numpy as np

from supernet.family import Family


def sandwich(family: Family, n_random: int, *, rng: np.random.Generator) -> list[Any]:
    """Architectures of one step: the largest, `n_random` random ones, the smallest.

    The two ends bound all others' error (Yu & Huang 2019, arXiv:1903.05134, section 3.1).
    """
    corners = family.corners()
    space = family.space()
    between = [space.candidate(row) for row in space.sample(n_random, rng=rng)]
    chosen = [corners["largest/fp32"], *between, corners["smallest/fp32"]]
    return [family.arch(candidate) for candidate in chosen]

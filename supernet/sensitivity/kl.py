"""How much every choice of a number format hurts by itself: what a predictor of accuracy may know of a policy
before any policy was evaluated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hw_profiles.errors import TrilobitError
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.space.space import Candidate, Genomes, SearchSpace

BATCH = 128  # images simulated at once

Build = Callable[[Candidate], QuantizedGraph]
Score = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class FormatSensitivity:
    """A table that adds up: a policy's sensitivity is the sum over its active choices.

    Attributes:
        options: by the name of a choice of number formats, what each of its options adds, in nats; at least
            0, and 0 for the first, which is fp32.

    Raises:
        TrilobitError: a number below 0 or not finite, or a first option that is not 0.
    """

    options: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        for name, values in self.options.items():
            if not values or values[0] != 0 or not np.isfinite(values).all() or min(values) < 0:
                raise TrilobitError(
                    f"sensitivity of {name} is {list(values)}; wanted finite numbers from 0 on, the "
                    "first of them 0: delete damage.json and run `nas fit` again"
                )


def format_choices(space: SearchSpace) -> list[str]:
    """Return the names of the choices of number formats."""
    return [choice.name for choice in space.choices if choice.kind == "precision"]


def divergence(reference: Tensor, other: Tensor) -> float:
    """Return the mean Kullback-Leibler divergence in nats of `other` from `reference`, both (n, classes)
    logarithms of probabilities; rounding does not take it below 0.
    """
    return max(float((reference.exp() * (reference - other)).sum(dim=1).mean()), 0.0)


def measure_sensitivity(
    space: SearchSpace,
    names: Sequence[str],
    largest: Candidate,
    build: Build,
    images: Tensor,
    *,
    score: Score = divergence,
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield each of these choices of number formats with the sensitivity of its options.

    One layer alone is replaced in the largest network in fp32, and the score is the mean divergence between
    the class probabilities with and without it: replace-one-block scores by KL, of which a network's quality
    is the sum (Bercovich et al. 2024, arXiv:2411.19146, section 4.2). An option that the largest network
    cannot have adds 0.

    Args:
        largest: in fp32 throughout.
        build: the network of a candidate; all asked for are of the same architecture.
        images: (n, c, h, w), normalised, of its resolution; no labels are needed.
        score: what the replacement does, from the logarithms of the class probabilities before and after.
    """
    references: dict[Candidate, Tensor] = {}
    for name in names:
        column = space.columns[name]
        reference = _living(space, np.array(largest.genes, np.int16), column)
        unchanged = space.candidate(reference)
        if unchanged not in references:  # the same for all choices, unless one switches others on
            references[unchanged] = log_probabilities(build(unchanged), images)
        values = [0.0]
        for gene in range(1, len(space.choices[column].options)):
            changed = reference.copy()
            changed[column] = gene
            candidate = space.candidate(changed)
            same = candidate == unchanged
            values.append(
                0.0 if same else score(references[unchanged], log_probabilities(build(candidate), images))
            )
        yield name, tuple(values)


def log_probabilities(network: QuantizedGraph, images: Tensor) -> Tensor:
    """Return (n, classes) float64 logarithms of the simulated network's class probabilities."""
    logits = torch.cat([simulate(network, batch) for batch in torch.split(images, BATCH)])
    return torch.log_softmax(logits.double(), dim=1)


def _living(space: SearchSpace, genome: Genomes, column: int) -> Genomes:
    """`genome` (g,) with other choices of formats changed as far as that of `column` needs to be alive."""
    genome = genome.copy()
    for parent, alive in space.choices[column].active_if:
        at = space.columns[parent]
        options = space.choices[at].options
        if space.choices[at].kind == "precision" and options[genome[at]] not in alive:
            genome = _living(space, genome, at)
            genome[at] = options.index(alive[0])
    return genome

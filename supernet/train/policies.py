"""Quantization policies as genes: which choices of a space set number formats, and how to draw them.

Hessian-aware stochastic bit-switching (HASB, of arXiv:2502.01199): a layer that minds rounding less than the
average takes every width equally often, one that minds it more takes wide formats more often, b-bit ones in
proportion to b. Networks of a given average width come from an integer program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.lowering import lower
from supernet.families.family import Family
from supernet.formats.loading import load_activation_format, load_format
from supernet.qat.learned import integer_extremes
from supernet.sensitivity.hessian import allocate
from supernet.space.space import Genomes

Formats = Mapping[str, Layer]  # weighted layers by name


@dataclass(frozen=True)
class PolicyChoice:
    """A choice of number formats, without its floating-point options.

    Attributes:
        column: in the genome matrix.
        genes: its integer options.
        bits: width of each: of the weights, or of the activations where it sets only those.
        layers: names of the weighted layers that it sets.
        weights: whether it sets formats of weights.
    """

    column: int
    genes: tuple[int, ...]
    bits: tuple[int, ...]
    layers: tuple[str, ...]
    weights: bool


@dataclass(frozen=True)
class Policies:
    """What policies of a family can be drawn from.

    Attributes:
        base: (g,) a genome of the largest architecture, integer throughout.
        columns: all choices of number formats, those without integer options included.
        choices: those that have several integer options, in the order of their columns.
        base_bits: narrowest width of weights in `base`, which all networks have where nothing is to choose.
    """

    base: Genomes
    columns: tuple[int, ...]
    choices: tuple[PolicyChoice, ...]
    base_bits: int

    @property
    def of_weights(self) -> tuple[PolicyChoice, ...]:
        """Those of the choices that set formats of weights."""
        return tuple(choice for choice in self.choices if choice.weights)

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of weights that there are, the widest first."""
        widths = {bits for choice in self.of_weights for bits in choice.bits} or {self.base_bits}
        return tuple(sorted(widths)[::-1])

    def average_bits(self, genome: Genomes) -> float:
        """Average width of the weights of `genome` (g,), which is integer throughout, over the choices."""
        widths = [c.bits[c.genes.index(int(genome[c.column]))] for c in self.of_weights]
        return float(np.mean(widths)) if widths else float(self.base_bits)

    def uniform(self, genome: Genomes, bits: int, *, rng: np.random.Generator) -> Genomes:
        """Return `genome` (g,) with every choice at `bits`, or as near as it has."""
        result = self._integer(genome)
        for choice in self.choices:
            off = np.abs(np.array(choice.bits) - bits)
            result[choice.column] = rng.choice(np.array(choice.genes)[off == off.min()])
        return result

    def switched(self, genome: Genomes, traces: Mapping[str, float], *, rng: np.random.Generator) -> Genomes:
        """Return `genome` (g,) with widths drawn by HASB."""
        result, means = self._integer(genome), self._means(traces)
        average = np.mean(means) if len(means) else 0.0
        for choice, mean in zip(self.choices, means, strict=True):
            share = switching_probabilities(choice.bits, sensitive=bool(mean > average))
            result[choice.column] = rng.choice(choice.genes, p=share)
        return result

    def allocated(
        self, genome: Genomes, sensitivities: Mapping[int, Mapping[str, float]], average: float
    ) -> Genomes:
        """Return `genome` (g,) with the widths of weights of this average, or as near as there is, that the
        layers mind least; other choices at their widest.

        Args:
            sensitivities: by width and layer, see `supernet.sensitivity.hessian`.
            average: over the choices, in bits.
        """
        result = self._integer(genome)
        for choice in self.choices:
            result[choice.column] = choice.genes[int(np.argmax(choice.bits))]
        own = self.of_weights
        if not own:
            return result
        costs = [
            [sum(sensitivities[bits][layer] for layer in choice.layers) for bits in choice.bits]
            for choice in own
        ]
        widths = [choice.bits for choice in own]
        picked = allocate(widths, costs, nearest_total(widths, average))
        for choice, index in zip(own, picked, strict=True):
            result[choice.column] = choice.genes[index]
        return result

    def _integer(self, genome: Genomes) -> Genomes:
        """Return the architecture of `genome` with the policy of `base`, which keeps every choice alive."""
        result = np.array(genome)
        result[list(self.columns)] = self.base[list(self.columns)]
        return result

    def _means(self, traces: Mapping[str, float]) -> NDArray[np.float64]:
        return np.array([np.mean([traces[layer] for layer in choice.layers]) for choice in self.choices])


def switching_probabilities(bits: Sequence[int], *, sensitive: bool) -> NDArray[np.float64]:
    """Return (k,) how often a layer takes each of these widths.

    >>> switching_probabilities((2, 4, 6, 8), sensitive=True)
    array([0.1, 0.2, 0.3, 0.4])
    """
    weights = np.array(bits, np.float64) if sensitive else np.ones(len(bits))
    return np.asarray(weights / weights.sum())


def nearest_total(widths: Sequence[Sequence[int]], average: float) -> int:
    """Return, of the sums that one width per layer can have, the one nearest to that of this average."""
    reachable = {0}
    for options in widths:
        reachable = {total + width for total in reachable for width in options}
    return min(reachable, key=lambda total: (abs(total - average * len(widths)), total))


def find_policies(family: Family) -> Policies:
    """Return the choices that set number formats, found by trying each option on the largest network.

    Raises:
        TrilobitError: the space has no integer formats.
    """
    base = np.array(integer_extremes(family)[0].genes, np.int16)
    options = family.space().choices
    columns = tuple(column for column, choice in enumerate(options) if choice.kind == "precision")
    policy_choices = []
    for column in columns:
        genes = range(len(options[column].options))
        policy_choices.append(
            _policy_choice(column, [_formats(family, _with(base, column, gene)) for gene in genes])
        )
    widths = [load_format(layer.weight_format).bits for layer in _formats(family, base).values()]
    return Policies(
        base, columns, tuple(choice for choice in policy_choices if choice is not None), min(widths)
    )


def _policy_choice(column: int, tried: Sequence[Formats]) -> PolicyChoice | None:
    """Return what a choice sets, by the layers' formats with each of its options; None where it sets
    nothing, or leaves one integer format only."""
    genes = [gene for gene, formats in enumerate(tried) if _moves_to_integers(formats, tried)]
    for weights in (True, False):
        pairs = [{name: _format(layer, weights=weights) for name, layer in tried[g].items()} for g in genes]
        layers = (
            [name for name in pairs[0] if len({formats_of[name] for formats_of in pairs}) > 1]
            if pairs
            else []
        )
        if layers:
            bits = tuple(_bits(formats_of[layers[0]], weights=weights) for formats_of in pairs)
            return PolicyChoice(column, tuple(genes), bits, tuple(layers), weights)
    return None


def _moves_to_integers(formats: Formats, tried: Sequence[Formats]) -> bool:
    """Return whether no layer that the choice sets computes in floating point with this option."""
    moved = [name for name in formats if len({_key(option_formats[name]) for option_formats in tried}) > 1]
    return all(load_format(formats[name].weight_format).weight.needs_scale for name in moved)


def _key(layer: Layer) -> tuple[str, str]:
    return layer.weight_format, layer.activation_format


def _format(layer: Layer, *, weights: bool) -> str:
    return layer.weight_format if weights else layer.activation_format


def _bits(fmt: str, *, weights: bool) -> int:
    return load_format(fmt).bits if weights else load_activation_format(fmt).bits


def _formats(family: Family, genome: Genomes) -> dict[str, Layer]:
    space = family.space()
    work = lower(family.workload(space.candidate(space.canonical(genome[None])[0])))
    return {n: layer for n, layer in zip(work.names, work.layers, strict=True) if layer.weighted}


def _with(genome: Genomes, column: int, gene: int) -> Genomes:
    changed = np.array(genome)
    changed[column] = gene
    return changed

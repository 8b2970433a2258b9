"""The number formats of one architecture as an allocation problem: what they cost on the run's device, the
run's limits on that, and why nothing meets them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.scenario import DECODE
from nas.problem.costs import LATENCY, REJECTED, Costs
from nas.problem.scenarios import TOKENS_PER_S, scenario_latency
from nas.problem.targets import Targets
from nas.search.algorithms.milp import (
    Formats,
    GeneSum,
    Terms,
    formats_of,
    largest_limits,
    least_largest,
    trade_offs,
)
from nas.search.objectives import Objective, objective
from nas.search.units import show
from predictors.predictor import Predictor
from predictors.table import PeakTable
from supernet.solvers.multiple_choice import InfeasibleError, Limit, Problem, Term
from supernet.space.space import Genomes, SearchSpace

SEEDED, LEVELS = 4, 4  # architectures whose allocations a search starts from, and how many of each
Sensitivity = Mapping[str, Sequence[float]]  # by name of a choice of formats, what each of its options adds


@dataclass(frozen=True, eq=False)
class Allocator:
    """One architecture.

    Attributes:
        formats: what may be chosen.
        names: of the choices.
        costs: sums over the formats by objective name, in its unit.
        limits: those of the run, and that the device runs everything.
        peaks: by objective name, costs that are the largest of the network's parts, a part each.
        limited: which costs the search trades off.
    """

    formats: Formats
    names: tuple[str, ...]
    costs: Mapping[str, Terms]
    limits: tuple[Limit, ...]
    peaks: Mapping[str, Terms]
    limited: tuple[str, ...]

    def problem(self, sensitivity: Sensitivity) -> Problem:
        """Return the problem of the formats of the least sensitivity within the limits."""
        summed = tuple(
            Term((item,), np.array(sensitivity[name], np.float64)) for item, name in enumerate(self.names)
        )
        return Problem(self.formats.sizes, summed, self.limits)

    def allocate(self, sensitivity: Sensitivity, count: int) -> Genomes:
        """Return (n, g) up to `count` networks: the least sensitive within the limits first, then cheaper and
        cheaper ones, see `nas.search.algorithms.milp.trade_offs`.

        Raises:
            TrilobitError: no formats of this architecture meet the limits.
        """
        problem = self.problem(sensitivity)
        try:
            solutions = trade_offs(problem, [self.costs[name] for name in self.limited], count)
        except InfeasibleError as error:
            raise TrilobitError(self._why(problem, error)) from None
        return self.formats.genomes(solutions)

    def _why(self, problem: Problem, error: InfeasibleError) -> str:
        if error.name == REJECTED:
            return "the device cannot run this architecture in any formats that meet the limits"
        if not error.name:
            return "no formats of this architecture meet all limits together; loosen one of them"
        nearest = error.nearest
        if error.name in self.peaks:
            others = tuple(limit for limit in self.limits if limit.name != error.name and error.together)
            nearest = least_largest(replace(problem, limits=others), self.peaks[error.name])
        limited = objective(error.name)
        also = " while the other limits are met" if error.together else ""
        return (
            f"{error.name} <= {show(limited, error.limit)} cannot be met by this architecture{also}; the "
            f"nearest possible value is {show(limited, nearest)}: loosen the limit, or name another "
            "--architecture"
        )


def allocator(
    space: SearchSpace, costs: Costs, targets: Targets, genome: Genomes, *, confidence: float = 0.5
) -> Allocator:
    """Return what may be chosen for the architecture of `genome` (g,). A limit on accuracy is left to what is
    measured.

    Args:
        confidence: with which the limit on latency is to be met; 0.5 takes latency as predicted.

    Raises:
        TrilobitError: the architecture has no formats to choose between.
    """
    formats = formats_of(space, genome)
    if not formats.columns:
        raise TrilobitError(
            "this space has one number format for every layer: there is nothing to allocate; name several "
            "with --formats, such as fp32,int8"
        )
    sums = cost_sums(formats, costs)
    peaks = {
        name: formats.parts(GeneSum(table.positions.strides, table.positions.offsets, table.values))
        for name, table in costs.peaks.items()
        if isinstance(table, PeakTable)
    }
    limits = [Limit(REJECTED, sums[REJECTED], upper=0.0)]
    for limited in targets.bounded:
        name, bound = limited.name, limited.bound or np.inf
        if name == TOKENS_PER_S:
            name, bound = scenario_latency(DECODE), costs.batch / bound
        if name in costs.timed:  # its expected error is a share of it
            error = float(costs.std({name: np.ones(1)})[name][0])
            bound /= 1 + NormalDist().inv_cdf(confidence) * error
        if name in sums:
            limits.append(Limit(name, sums[name], upper=bound))
        elif limited.name in peaks:
            limits += largest_limits(limited.name, peaks[limited.name], bound)
        elif name in costs.peaks:
            raise TrilobitError(
                f"a limit on {name} of decoders, whose caches count, is none that milp can keep: take "
                "--engine evolution, or limit something else"
            )
    traded = tuple(o.name for o in targets.objectives if o.name in sums)
    names = tuple(space.choices[column].name for column in formats.columns)
    return Allocator(formats, names, sums, tuple(limits), peaks, traded)


def cost_sums(formats: Formats, costs: Costs) -> dict[str, Terms]:
    """Return by objective name, and for the layers that the device rejects, the sum over the formats."""
    at = costs.table.positions
    sums: dict[str, Terms] = {
        name: (
            *formats.terms(GeneSum(at.strides, at.offsets, costs.table.values[:, column])),
            Term((), np.array(costs.constants.get(name, 0.0))),
        )
        for column, name in enumerate(costs.columns)
    }
    first = next(iter(costs.timings))  # no column of a device without times
    return {LATENCY: sums[first], **sums} if first in sums else sums


def predicted_sensitivity(
    space: SearchSpace, formats: Formats, predictor: Predictor, metric: Objective
) -> Sensitivity:
    """Return what each format alone takes from the predicted accuracy of the architecture, in shares."""
    rows, at = [formats.genome], []
    for item, column in enumerate(formats.columns):
        for gene in range(formats.sizes[item]):
            row = formats.genome.copy()
            row[column] = gene
            rows.append(row)
            at.append(item)
    quality = metric.to_min(predictor.predict(space.canonical(np.array(rows, np.int16))).mean)
    lost = np.split(quality[1:] - quality[0], np.cumsum(formats.sizes)[:-1])
    names = [space.choices[column].name for column in formats.columns]
    return dict(zip(names, map(np.ndarray.tolist, lost), strict=True))


def seeds(
    space: SearchSpace, costs: Costs, targets: Targets, predictor: Predictor, architectures: Genomes
) -> Genomes:
    """Return (n, g) networks for an evolution to start from: exact allocations at several limits for each of
    the first `SEEDED` different architectures of (k, g), by the sensitivity that the predictor sees in each
    format alone. Nothing where the space has no formats to choose between or an architecture meets no limits.
    """
    allocations = [np.empty((0, len(space.choices)), np.int16)]
    bases = np.array([formats_of(space, genome).genome for genome in architectures], np.int16)
    _, first = np.unique(bases, axis=0, return_index=True)
    for row in np.sort(first)[:SEEDED]:
        try:
            choosing = allocator(space, costs, targets, bases[row])
            allocations.append(
                choosing.allocate(
                    predicted_sensitivity(space, choosing.formats, predictor, targets.metric), LEVELS
                )
            )
        except TrilobitError:  # not of this architecture
            continue
    return np.concatenate(allocations)

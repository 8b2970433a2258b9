"""Networks that a round of the search starts from: exact allocations of formats."""

import numpy as np

from nas.allocation.allocation import SEEDED, seeds
from nas.search.loop import choose_finalists
from nas.search.pareto import non_dominated
from nas.stages.search_context import Measurements, SearchContext, genomes_of_measured, measured_values
from predictors.predictor import Predictor
from supernet.space.space import Genomes


def allocated(context: SearchContext, predictor: Predictor, measured: Measurements) -> Genomes:
    """Allocate formats exactly (n, g) for the largest and the smallest architecture and, where there is one,
    for networks of the measured front.
    """
    targets, family = context.targets, context.run.family
    rows = np.array([family.extreme("largest").genes, family.extreme("smallest").genes], np.int16)
    if measured:
        values = measured_values(context, measured)
        points = targets.minimised(values)
        points[targets.violation(values) > 0] = np.nan
        front = np.flatnonzero(non_dominated(points))
        rows_of_front = front[choose_finalists(points[front], SEEDED)]
        rows = np.concatenate([genomes_of_measured(measured)[rows_of_front], rows])
    return seeds(context.run.family.space(), context.costs, targets, predictor, rows)

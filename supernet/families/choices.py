"""What families share that name their choices: functions of options as ones of genes, policies, corners."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from supernet.formats.loading import QuantPolicy, parse_precision
from supernet.space.space import Candidate, SearchSpace

Result = TypeVar("Result")


def of_options(
    space: SearchSpace, names: Sequence[str], function: Callable[..., Result]
) -> tuple[tuple[int, ...], Callable[[tuple[int, ...]], Result]]:
    """Columns of the named choices, and a function of their options, by position, as one of the genes there:
    what `CostTerm` and `PeakTerm` are made of.
    """
    columns = tuple(space.columns[name] for name in names)
    options = [space.choices[column].options for column in columns]

    def of_genes(genes: tuple[int, ...]) -> Result:
        return function(*(choice[gene] for choice, gene in zip(options, genes, strict=True)))

    return columns, of_genes


def policy(space: SearchSpace, candidate: Candidate) -> QuantPolicy:
    """The number formats of all layers `NAME` that have a choice `NAME.format`."""
    return {
        name.removesuffix(".format"): parse_precision(str(option))
        for name, option in space.decode(candidate).items()
        if name.endswith(".format")
    }


def corners(space: SearchSpace, formats: Sequence[str]) -> Mapping[str, Candidate]:
    """The first option of every choice that is no number format, and the last, each in every uniform one of
    `formats`: `smallest/int8`, `largest/fp32`...
    """
    out = {}
    for (size, end), (i, fmt) in itertools.product((("smallest", 0), ("largest", -1)), enumerate(formats)):
        genome = [i if c.kind == "precision" else end % len(c.options) for c in space.choices]
        out[f"{size}/{fmt}"] = space.candidate(np.array(genome, np.int16))
    return out

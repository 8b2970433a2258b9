"""Genome matrices as numbers to learn from.

Every feature is a lookup by one gene, so a population is encoded by one gather. A choice of numbers (kernels,
depths, channel counts) becomes one *level*: the rank of its option in (0, 1], 0 where the gene is dead, so
that a block that is absent is smaller than the smallest block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.table import CostTable, option_costs
from supernet.space.space import Choice, Genomes, Kind, SearchSpace

ARCHITECTURE: tuple[Kind, ...] = ("architecture", "pruning")
POLICY: tuple[Kind, ...] = ("precision",)

SCALE = 0.3  # of features without a natural one: the standard deviation of a level
POLICY_SCALE = 0.1  # a format moves accuracy less than a kernel does
FAINTEST = 0.01  # change of format: one that cost nothing where it was measured may cost some elsewhere
TINY = 1e-12  # keeps log(0) and x / 0 away; every real cost is larger
SECTION = 4  # blocks: stages of convolutional networks have two to four

Features = NDArray[np.float32]  # (n, f)
Section = tuple[int, int]  # stage, and which part of its blocks


@dataclass(frozen=True, eq=False)
class Encoding:
    """A lookup per feature.

    Attributes:
        space: whose genomes it encodes.
        columns: (f,) the gene each feature looks at.
        values: (f, k + 1) its value where that gene is dead, then at each of its options, at most k.
    """

    space: SearchSpace
    columns: NDArray[np.int64]
    values: Features

    def __call__(self, genomes: Genomes) -> Features:
        """Return features (n, f) of genomes (n, g); equal networks get equal rows."""
        codes = np.where(self.space.active(genomes), genomes + 1, 0)[:, self.columns]
        index = codes + np.arange(len(self.columns)) * self.values.shape[1]
        return np.asarray(self.values.ravel().take(index))

    def __or__(self, other: "Encoding") -> "Encoding":
        """Return both sets of features, side by side."""
        columns = np.concatenate((self.columns, other.columns))
        return Encoding(self.space, columns, np.concatenate((self.values, other.values)))


def level(choice: Choice) -> NDArray[np.float64]:
    """Return (r, k) one rank where the options are numbers, otherwise indicators."""
    if any(isinstance(option, str) for option in choice.options):
        return indicators(choice)
    return np.arange(1, len(choice.options) + 1)[None] / len(choice.options)


def indicators(choice: Choice) -> NDArray[np.float64]:
    """Return (k, k) one indicator per option."""
    return np.eye(len(choice.options))


def changes(choice: Choice) -> NDArray[np.float64]:
    """Return (k - 1, k) one indicator per option but the first: the first, and a dead gene, are all-zero."""
    return np.eye(len(choice.options))[1:] * POLICY_SCALE


def sections(space: SearchSpace) -> tuple[Section | None, ...]:
    """Return where in the network each choice stands; None outside the stages.

    Stages of convolutional networks are a section each. A transformer has one stage of all its blocks, and a
    head that the first blocks lack costs another accuracy than one that the last lack: a stage of many blocks
    is cut into equal sections of about `SECTION`. What concerns all blocks of a stage is in its first.
    """
    blocks = dict[int, int]()  # of each stage
    for choice in space.choices:
        if choice.stage is not None:
            blocks[choice.stage] = max(blocks.get(choice.stage, 1), 1 + (choice.block or 0))
    count = {stage: max(1, round(n / SECTION)) for stage, n in blocks.items()}
    return tuple(
        None if c.stage is None else (c.stage, (c.block or 0) * count[c.stage] // blocks[c.stage])
        for c in space.choices
    )


def encode(
    space: SearchSpace, kinds: Sequence[Kind], rows: Callable[[Choice], NDArray[np.float64]]
) -> Encoding:
    """Return the features that `rows` gives each choice of these kinds."""
    k = int(space.cardinalities.max())
    columns, values = [], [np.zeros((0, k + 1))]
    for column, choice in enumerate(space.choices):
        if choice.kind in kinds:
            options = rows(choice)
            columns += [column] * len(options)
            values.append(np.pad(options, ((0, 0), (1, k - options.shape[1]))))
    return Encoding(space, np.array(columns, np.int64), np.concatenate(values).astype(np.float32))


def architecture(space: SearchSpace) -> Encoding:
    """Return features of the network, formats aside: a level per choice of numbers, one-hot otherwise.

    Kendall tau of the MLP on 100 rows of `ofa_mbv3_w10`: levels .936, one-hot .903, both .916.
    """
    return encode(space, ARCHITECTURE, level)


def every(space: SearchSpace, table: CostTable | None = None) -> Encoding:
    """Return features of everything: one-hot of all choices, and the levels of those of numbers.

    Args:
        table: as for `format_changes`, which take the place of one-hot formats where it knows their
            sensitivity.
    """
    weighted = format_changes(space, table)
    rows = indicators if weighted is changes else lambda choice: weighted(choice) / SCALE
    plain = encode(space, ARCHITECTURE, indicators) | encode(space, POLICY, rows)
    return plain | encode(space, ARCHITECTURE, level)


def policy(space: SearchSpace, table: CostTable | None = None) -> Encoding:
    """Return features of which layers leave the first format, which is fp32; all-zero for a network in fp32
    throughout.

    Args:
        table: as for `format_changes`.
    """
    return encode(space, POLICY, format_changes(space, table))


def format_changes(space: SearchSpace, table: CostTable | None) -> Callable[[Choice], NDArray[np.float64]]:
    """Return `changes`, larger where a change hurts more: the root of the sensitivity that the table knows of
    it, if it knows any, so that a policy drawn at random has about length 1.

    The root, since an effect on accuracy, of either sign, goes with the size of what rounding does to the
    outputs, and sensitivity with its square. On 50 quantized and 215 fp32 samples of cifar-mbconv the
    Gaussian process orders .818 of pairs rightly with these, .789 with all changes alike.
    """
    kinds = np.zeros(0, bool) if table is None else table.least <= 0
    if table is None or not kinds.any():
        return changes
    names = [choice.name for choice in space.choices if choice.kind in POLICY]
    costs = {name: np.maximum(option_costs(table, space, name)[:, kinds], 0) for name in names}
    typical = sum((cost.mean(axis=0) for cost in costs.values()), np.zeros(int(kinds.sum())))
    if not typical.any():
        return changes
    share = {name: (cost[:, typical > 0] / typical[typical > 0]).mean(axis=1) for name, cost in costs.items()}
    return lambda choice: np.diag(np.maximum(np.sqrt(share[choice.name]), FAINTEST))[1:]


@dataclass(frozen=True, eq=False)
class LogCosts:
    """Additive costs, standardised by the rows they were made from; none without a table.

    Logarithms of those that every network has some of, such as multiply-adds. Of those that a network may be
    without, such as the sensitivity to its formats, square roots: 0 is then an ordinary number, and stays 0.
    Costs that did not vary in these rows are 0 everywhere: nothing can be learned of them.

    Attributes:
        table: of k kinds of cost.
        without: (k,) whether a network may be without it.
        centre: (k,) subtracted; 0 of costs that a network may be without.
        factor: (k,) then multiplied by.
    """

    table: CostTable | None
    without: NDArray[np.bool_]
    centre: NDArray[np.float64]
    factor: NDArray[np.float64]

    def __call__(self, space: SearchSpace, genomes: Genomes) -> Features:
        """Return features (n, k) of genomes (n, g)."""
        compressed = _compressed(self.table, self.without, space, genomes)
        return ((compressed - self.centre) * self.factor).astype(np.float32)


def log_costs(table: CostTable | None, space: SearchSpace, genomes: Genomes) -> LogCosts:
    """Fit `LogCosts` to these genomes."""
    without = np.zeros(0, bool) if table is None else table.least <= 0
    compressed = _compressed(table, without, space, genomes)
    spread = compressed.std(axis=0)
    factor = np.where(spread > TINY, SCALE / np.maximum(spread, TINY), 0.0)
    return LogCosts(table, without, np.where(without, 0.0, compressed.mean(axis=0)), factor)


def _compressed(
    table: CostTable | None, without: NDArray[np.bool_], space: SearchSpace, genomes: Genomes
) -> NDArray[np.float64]:
    """Return (n, k) logarithms of costs, square roots of those that a network may be without."""
    if table is None:
        return np.zeros((len(genomes), 0))
    costs = table(space.canonical(genomes))
    return np.where(without, np.sqrt(np.maximum(costs, 0.0)), np.log(np.maximum(costs, TINY)))

"""The search space as data, and its algebra on genome matrices.

A genome matrix is `(n, g)` int16, one column per choice, each entry the index of an option. A choice is
*active* when all its conditions hold; inactive genes are dead and are 0 in a canonical genome. All functions
take and give whole matrices.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import FP32

Genomes = NDArray[np.int16]  # (n, g)
Option = int | str
MOST_SKELETONS = 2**12  # rows of one table of which genes are alive: it stays inside a core's cache
Kind = Literal["architecture", "pruning", "precision"]


@dataclass(frozen=True)
class Choice:
    """One decision.

    Attributes:
        name: unique within the space, for example `s1.b0.kernel`.
        options: what it can be, in order; the gene is the index into it.
        kind: what is searched: architecture, pruned channel counts, or number formats.
        active_if: conditions that must all hold: (name of an earlier choice, the options of it for which
            this one is alive).
            A condition also needs that earlier choice itself to be active.
        role: what is chosen: resolution, depth, width, kernel, expansion, format... A `format` is the number
            format of a layer, as `parse_precision` reads it.
        stage, block: where in the network, counted from 0; None for what is not in a stage, or concerns all
            blocks of it.
        layer: which layer there, for what concerns only one. Role, stage, block and layer say what a choice
            means; they are no part of a space's identity.
    """

    name: str
    options: tuple[Option, ...]
    kind: Kind = "architecture"
    active_if: tuple[tuple[str, tuple[Option, ...]], ...] = ()
    role: str = ""
    stage: int | None = None
    block: int | None = None
    layer: str = ""

    @property
    def meaning(self) -> str:
        """What is chosen, wherever it stands: choices of one meaning are alike. Without a role, its name."""
        if self.role == "format" and self.layer:
            return f"{self.layer.rstrip('0123456789')}.format"  # all of conv1, conv2... are alike
        return self.role or self.name


@dataclass(frozen=True, eq=False)
class Skeletons:
    """Every combination of some genes that decide the life of others, as one table.

    Attributes:
        columns: of the deciding genes.
        strides: one per column; `genes @ strides` is the row of the table.
        alive: (rows, g) whether these genes keep a gene alive; others may still end it.
        kept: (rows, g) int16, all bits set where `alive`: a mask for genomes.
    """

    columns: tuple[int, ...]
    strides: tuple[int, ...]
    alive: NDArray[np.bool_]
    kept: Genomes

    def rows(self, genomes: Genomes) -> Genomes:
        """Return the row (n,) of the table that each genome has."""
        row = genomes[:, self.columns[0]] * np.int16(self.strides[0])
        for column, stride in zip(self.columns[1:], self.strides[1:], strict=True):
            row += genomes[:, column] * np.int16(stride)
        return row


@dataclass(frozen=True)
class Candidate:
    """One canonical genome: architecture, pruning and precision together.

    Attributes:
        genes: one option index per choice, 0 where dead.
        id: hash of the space's fingerprint and the genes; equal in every run of the same space.
    """

    genes: tuple[int, ...]
    id: str


def candidate_id(fingerprint: str, genes: Sequence[int]) -> str:
    """Return the id of canonical genes in the space of a fingerprint."""
    return hashlib.sha256(f"{fingerprint}:{','.join(map(str, genes))}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class SearchSpace:
    """A family's name and its choices.

    Raises:
        ValueError: a choice has no options, a name is used twice, or a condition refers to a later or
            unknown choice.
    """

    family: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        earlier: dict[str, Choice] = {}
        for choice in self.choices:
            if not choice.options or choice.name in earlier:
                raise ValueError(f"choice {choice.name!r} has no options, or its name is taken")
            for parent, alive in choice.active_if:
                if parent not in earlier or not set(alive) <= set(earlier[parent].options):
                    raise ValueError(
                        f"{choice.name!r}: condition on {parent!r} must name an earlier choice and "
                        "options of it"
                    )
            earlier[choice.name] = choice

    @cached_property
    def columns(self) -> dict[str, int]:
        """Column of each choice by name."""
        return {choice.name: column for column, choice in enumerate(self.choices)}

    @cached_property
    def format_columns(self) -> NDArray[np.int64]:
        """Columns of the choices of number formats."""
        return np.array([i for i, c in enumerate(self.choices) if c.kind == "precision"], np.int64)

    @cached_property
    def cardinalities(self) -> NDArray[np.int64]:
        """(g,) number of options of each choice."""
        return np.array([len(choice.options) for choice in self.choices])

    @cached_property
    def _skeletons(self) -> tuple[Skeletons, ...]:
        """Tables that together say which genes are alive: one where few genes decide, as is usual."""
        deciding = self._deciding()
        groups: list[list[int]] = []
        for column in deciding:
            size = math.prod(int(self.cardinalities[c]) for c in (*groups[-1], column)) if groups else 0
            if 0 < size <= MOST_SKELETONS:
                groups[-1].append(column)
            else:
                groups.append([column])
        return tuple(_skeletons([(column, deciding[column]) for column in group]) for group in groups)

    def _deciding(self) -> dict[int, NDArray[np.bool_]]:
        """Column -> (options, g) whether an option of that choice keeps each choice alive.

        The conditions of a choice are its own and all those of the choices they refer to: a conjunction in
        which it no longer matters who is alive.
        """
        tables: dict[int, NDArray[np.bool_]] = {}
        for column, choice in enumerate(self.choices):
            for name, options in choice.active_if:
                parent = self.columns[name]
                for table in tables.values():
                    table[:, column] &= table[:, parent]
                own = tables.setdefault(
                    parent, np.ones((len(self.choices[parent].options), len(self.choices)), bool)
                )
                own[:, column] &= [option in options for option in self.choices[parent].options]
        return tables

    @cached_property
    def fingerprint(self) -> str:
        """Hash of family and choices: files of one space are refused by another."""
        document = [self.family, [[c.name, c.options, c.kind, c.active_if] for c in self.choices]]
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:16]

    # -- the algebra -------------------------------------------------------------------------------

    def active(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Return (n, g) True where the gene is active."""
        mask: NDArray[np.bool_] | None = None
        for skeletons in self._skeletons:
            alive = skeletons.alive.take(skeletons.rows(genomes), axis=0)
            mask = alive if mask is None else mask & alive
        return np.ones(genomes.shape, bool) if mask is None else mask

    def canonical(self, genomes: Genomes) -> Genomes:
        """Return the same networks with inactive genes set to 0. Idempotent."""
        rows = np.array(genomes, np.int16)
        for skeletons in self._skeletons:
            rows &= skeletons.kept.take(skeletons.rows(genomes), axis=0)
        return rows

    def skeleton(self, genomes: Genomes) -> NDArray[np.int64]:
        """Return (n,) a number for the genes that others depend on: equal where all of those are."""
        skeleton = np.zeros(len(genomes), np.int64)
        for skeletons in self._skeletons:
            skeleton = skeleton * len(skeletons.alive) + skeletons.rows(genomes)
        return skeleton

    def sample(self, n: int, *, rng: np.random.Generator) -> Genomes:
        """Draw (n, g) canonical genomes, every active gene uniform over its options."""
        return self.canonical(
            rng.integers(0, self.cardinalities, size=(n, len(self.choices)), dtype=np.int16)
        )

    def mutate(
        self, genomes: Genomes, rate: float | NDArray[np.float64], *, rng: np.random.Generator
    ) -> Genomes:
        """Redraw each gene with probability `rate`, always to another option, and at least one living gene
        per row.

        `rate` is one number, or a column (n, 1) with one per row.
        """
        drawn = rng.random(genomes.shape)
        mutable = self.active(genomes) & (self.cardinalities > 1)
        forced = np.where(mutable, drawn, np.inf).argmin(axis=1)
        mask = drawn < rate
        mask[np.arange(len(genomes)), forced] = True
        step = rng.integers(1, np.maximum(self.cardinalities, 2), size=genomes.shape)
        return self.canonical(np.where(mask, (genomes + step) % self.cardinalities, genomes).astype(np.int16))

    def crossover(self, mothers: Genomes, fathers: Genomes, *, rng: np.random.Generator) -> Genomes:
        """Cross uniformly: take every gene from one of the two parents of its row."""
        return self.canonical(np.where(rng.random(mothers.shape) < 0.5, mothers, fathers))

    def one_hot(self, genomes: Genomes, kinds: Sequence[Kind] | None = None) -> NDArray[np.float32]:
        """Return the one-hot encoding (n, d), all-zero where the gene is inactive; `kinds` restricts it to
        choices of these kinds.

        With every kind, d is the sum of the cardinalities, and equal networks have equal rows.
        """
        columns, options = self._slots
        if kinds is not None:
            named = np.array([choice.kind in kinds for choice in self.choices])[columns]
            columns, options = columns[named], options[named]
        marked = np.array(genomes, np.int16)  # -1, which is no option, where dead
        for skeletons in self._skeletons:
            marked |= ~skeletons.kept.take(skeletons.rows(genomes), axis=0)
        return np.equal(marked.take(columns, axis=1), options).astype(np.float32)

    @cached_property
    def _slots(self) -> tuple[NDArray[np.int64], Genomes]:
        """Column and option of each place in a one-hot code."""
        columns = np.repeat(np.arange(len(self.choices)), self.cardinalities)
        return columns, np.concatenate([np.arange(size) for size in self.cardinalities]).astype(np.int16)

    @cached_property
    def size(self) -> int:
        """Exact number of distinct networks: of canonical genomes.

        Choices that a condition refers to are enumerated together with everything that hangs on them, one
        connected group after the other; groups are independent, so their counts multiply.
        """
        return math.prod(self._group_size(group) for group in self._groups())

    def _groups(self) -> list[list[int]]:
        """Columns connected by conditions."""
        group = list(range(len(self.choices)))
        for column, choice in enumerate(self.choices):
            for parent, _ in choice.active_if:
                old, new = group[column], group[self.columns[parent]]
                group = [new if g == old else g for g in group]
        return [[c for c, g in enumerate(group) if g == label] for label in sorted(set(group))]

    def _group_size(self, columns: list[int]) -> int:
        parents = sorted({self.columns[name] for c in columns for name, _ in self.choices[c].active_if})
        leaves = [c for c in columns if c not in parents]
        rows = np.array(list(itertools.product(*(range(self.cardinalities[p]) for p in parents))), np.int16)
        genomes = np.zeros((len(rows), len(self.choices)), np.int16)
        genomes[:, parents] = rows.reshape(len(rows), len(parents))
        living = self.active(genomes)
        canonical = (living[:, parents] | (genomes[:, parents] == 0)).all(axis=1)
        return sum(
            math.prod(int(self.cardinalities[c]) for c in leaves if alive[c]) for alive in living[canonical]
        )

    # -- edges: one row becomes something to read --------------------------------------------------

    def candidate(self, genome: Genomes) -> Candidate:
        """Return the noun for one row `(g,)`, canonical.

        Raises:
            TrilobitError: a gene is outside its options, or there are more or fewer genes than choices.
        """
        row = np.asarray(genome)
        if row.shape != (len(self.choices),) or (row < 0).any() or (row >= self.cardinalities).any():
            raise TrilobitError(f"not a genome of space {self.fingerprint}: {row.tolist()}")
        genes = tuple(int(gene) for gene in self.canonical(row[None].astype(np.int16))[0])
        return Candidate(genes, candidate_id(self.fingerprint, genes))

    def decode(self, candidate: Candidate) -> dict[str, Option]:
        """Return the active choices of a candidate by name, in order."""
        living = self.active(np.array([candidate.genes], np.int16))[0]
        return {
            choice.name: choice.options[gene]
            for choice, gene, alive in zip(self.choices, candidate.genes, living, strict=True)
            if alive
        }

    def encode(self, decisions: Mapping[str, Option]) -> Candidate:
        """Return the candidate of decisions: the inverse of `decode`. Choices without one must be inactive.

        Raises:
            TrilobitError: an unknown choice or option, or a living choice that is not decided.
        """
        unknown = set(decisions) - set(self.columns)
        if unknown:
            raise TrilobitError(f"no such choice: {', '.join(sorted(unknown))}")
        genome = np.zeros((1, len(self.choices)), np.int16)
        for column, choice in enumerate(self.choices):
            if choice.name in decisions:
                if decisions[choice.name] not in choice.options:
                    raise TrilobitError(
                        f"{choice.name}: {decisions[choice.name]!r} is none of {choice.options}"
                    )
                genome[0, column] = choice.options.index(decisions[choice.name])
        living = self.active(genome)[0]
        missing = [
            c.name for c, alive in zip(self.choices, living, strict=True) if alive and c.name not in decisions
        ]
        if missing:
            raise TrilobitError(f"undecided: {', '.join(missing)}")
        return self.candidate(genome[0])


def _skeletons(tables: Sequence[tuple[int, NDArray[np.bool_]]]) -> Skeletons:
    """Combine the options of choices, given as (column, (options, g) what they keep alive)."""
    alive = np.ones((1, tables[0][1].shape[1]), bool)
    for _, table in tables:
        alive = (alive[:, None] & table).reshape(-1, alive.shape[1])
    sizes = [len(table) for _, table in tables]
    strides = tuple(math.prod(sizes[position + 1 :]) for position in range(len(sizes)))
    return Skeletons(tuple(column for column, _ in tables), strides, alive, -alive.astype(np.int16))


def in_fp32(space: SearchSpace, genomes: Genomes) -> Genomes:
    """Return the same architectures (n, g) in fp32 throughout."""
    return in_format(space, genomes, FP32)


def in_format(space: SearchSpace, genomes: Genomes, number_format: str) -> Genomes:
    """Return the same architectures (n, g) in one number format throughout, by the name of the option.

    A choice of formats without it is one that another choice switches off then: it gets its first option.
    """
    genomes = genomes.copy()
    for column in space.format_columns:
        options = space.choices[column].options
        genomes[:, column] = options.index(number_format) if number_format in options else 0
    return genomes


def unique_rows(genomes: Genomes) -> NDArray[np.int64]:
    """Return the indices of the first occurrence of every distinct row, in order of appearance."""
    _, first = np.unique(row_keys(genomes), return_index=True)
    return np.sort(first).astype(np.int64)


def row_keys(genomes: Genomes) -> NDArray[np.void]:
    """Return opaque keys (n,), equal exactly where rows are equal: for `np.unique`, `np.isin` and Python sets
    via `.tolist()`.
    """
    rows = np.ascontiguousarray(genomes)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()

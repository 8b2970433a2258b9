"""What the Gaussian process reads of a genome, in groups of features that share a length scale.

Features of the architecture come first. Those of the policy come after them and are differences from the same
architecture with every format at fp32: all-zero for a network in fp32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from predictors import features
from predictors.features import ARCHITECTURE, POLICY, SCALE, TINY
from predictors.table import CostTable
from supernet.space.space import Choice, Genomes, Kind, SearchSpace, in_fp32

Floats = NDArray[np.float64]
UNCHANGED = 1e-6  # spread of a cost that says nothing


@dataclass(frozen=True, eq=False)
class Part:
    """Features of the architecture, or of the policy, that genes decide.

    Attributes:
        columns: (f,) the gene of each feature that is looked up.
        values: (f, k + 1) as in `predictors.features.Encoding`.
        sums: (f, m) which of them are added up.
        labels: of the f + m features; those of one label share hyper-parameters.
    """

    columns: NDArray[np.int32]
    values: features.Features
    sums: features.Features
    labels: tuple[str, ...]

    def __call__(self, codes: NDArray[np.int32]) -> tuple[features.Features, features.Features]:
        """Return features (n, f) and their sums (n, m) of codes (n, g), 0 where a gene is inactive and
        otherwise 1 more than the gene.
        """
        index = codes.take(self.columns, axis=1)
        index += np.arange(len(self.columns), dtype=np.int32) * np.int32(self.values.shape[1])
        looked_up = self.values.ravel().take(index)
        return looked_up, looked_up @ self.sums


@dataclass(frozen=True, eq=False)
class FreeCosts:
    """Costs of the architecture in fp32, and what the policy changes of them.

    Attributes:
        space: of the genomes.
        table: none if there are no costs.
        formats: columns of the genes of the policy.
        relative: (k,) which columns are never 0 in fp32: they are compared as logarithms, and changes of them
            are shares. Of the others, such as the sensitivity to a policy, there are only changes.
    """

    space: SearchSpace
    table: CostTable | None
    formats: NDArray[np.int64]
    relative: NDArray[np.bool_]

    def __call__(self, genomes: Genomes) -> tuple[Floats, Floats]:
        """Return (n, r) logarithms in fp32 and (n, k) changes of canonical genomes (n, g)."""
        none = np.zeros((len(genomes), 0))
        if self.table is None:
            return none, none
        plain = self.in_fp32(genomes)
        unit = np.where(self.relative, np.maximum(plain, TINY), 1.0)
        logs = np.log(unit[:, self.relative])
        return logs, (self.table(genomes) - plain) / unit if len(self.formats) else none

    def in_fp32(self, genomes: Genomes) -> Floats:
        """Return the costs (n, k) of canonical genomes (n, g): of the same architectures in fp32."""
        if self.table is None:
            return np.zeros((len(genomes), 0))
        return self.table(in_fp32(self.space, genomes))


@dataclass(frozen=True, eq=False)
class Reader:
    """Genomes as features, those of priced columns standardised.

    Attributes:
        space: whose genomes it reads.
        architecture, policy: features that genes decide.
        costs: the other features.
        labels: of the a + p features; those of one label share hyper-parameters.
        split: a, how many features are of the architecture.
        centre, scale: (a + p,) of all features; those of the policy have centre 0.
    """

    space: SearchSpace
    architecture: Part
    policy: Part
    costs: FreeCosts
    labels: tuple[str, ...]
    split: int
    centre: features.Features
    scale: features.Features

    def __call__(self, genomes: Genomes) -> features.Features:
        """Return features (n, a + p) of genomes (n, g); equal networks get equal rows."""
        codes = np.where(self.space.active(genomes), genomes + 1, 0).astype(np.int32)
        logs, changes = self.costs(np.maximum(codes - 1, 0).astype(np.int16))
        out = np.empty((len(genomes), len(self.labels)), np.float32)
        parts = (*self.architecture(codes), logs, *self.policy(codes), changes)
        np.concatenate(parts, axis=1, out=out, casting="same_kind")
        out -= self.centre
        out *= self.scale
        return out


def reader(space: SearchSpace, table: CostTable | None, genomes: Genomes) -> Reader:
    """Return a reader whose features are centred and scaled by these genomes (n, g)."""
    searched = [choice.kind in POLICY and len(choice.options) > 1 for choice in space.choices]
    formats = np.flatnonzero(searched)
    costs, canonical = FreeCosts(space, table, formats, np.zeros(0, bool)), space.canonical(genomes)
    costs = replace(costs, relative=np.asarray((costs.in_fp32(canonical) > 0).all(axis=0)))
    logs, changes = (part.shape[1] for part in costs(canonical))
    architecture = _part(space, ARCHITECTURE, _levels_and_hats)
    policy = _part(space, POLICY, features.format_changes(space, table))
    first = [*architecture.labels, *(f"cost {i}" for i in range(logs))]
    labels = (*first, *policy.labels, *(f"change of cost {i}" for i in range(changes)))
    same = np.ones(len(labels), np.float32)
    plain = Reader(space, architecture, policy, costs, labels, len(first), 0 * same, same)
    raw = plain(genomes).astype(np.float64)
    centre = np.where(np.arange(len(labels)) < len(first), raw.mean(axis=0), 0)
    spread = np.sqrt(((raw - centre) ** 2).mean(axis=0))
    priced = np.array([label.startswith(("cost ", "change of cost ")) for label in labels])
    standardised = np.where(spread > UNCHANGED, SCALE / np.maximum(spread, UNCHANGED), 0)
    scale = np.where(priced, standardised, 1)
    return replace(plain, centre=centre.astype(np.float32), scale=scale.astype(np.float32))


def _levels_and_hats(choice: Choice) -> Floats:
    """Return (r, k) the level and, of three options or more, hats: how effects bend between them."""
    levels = features.level(choice)
    return levels if len(levels) > 1 else np.concatenate([levels, _hats(len(choice.options)) * SCALE])


def _hats(options: int) -> Floats:
    """Return (2, k) hat functions: 1 at the first and at the middle option, 0 half the options away.

    >>> _hats(3)
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    place = np.linspace(0, 2, options) if options > 1 else np.zeros(1)
    return np.asarray(np.maximum(1 - np.abs(place - np.array([[0.0], [1.0]])), 0))


def _part(space: SearchSpace, kinds: Sequence[Kind], rows: Callable[[Choice], Floats]) -> Part:
    lookup = features.encode(space, kinds, rows)
    choices = [space.choices[column] for column in lookup.columns]
    first = np.append(True, lookup.columns[1:] != lookup.columns[:-1])[: len(choices)]
    sections = features.sections(space)
    # levels add up over the blocks of a section of a stage, and so do changes of the policy; hats do not
    added = [i for i in range(len(choices)) if first[i] or kinds == POLICY]
    labels = [choice.meaning + ("" if i in added else " hat") for i, choice in enumerate(choices)]
    sums, summed = list[features.Features](), list[str]()
    for scope in ("section", "network"):
        places = [
            (sections[column] if scope == "section" else None, choice.meaning)
            for choice, column in zip(choices, lookup.columns, strict=True)
        ]
        for place in dict.fromkeys(places[i] for i in added):
            members = [i for i in added if places[i] == place]
            if len(members) > 1:
                sums.append(np.isin(np.arange(len(choices)), members) / np.sqrt(len(members)))
                summed.append(f"{place[1]} of {scope}")
    matrix = np.array(sums, np.float32).reshape(len(sums), len(choices)).T
    return Part(lookup.columns.astype(np.int32), lookup.values, matrix, (*labels, *summed))

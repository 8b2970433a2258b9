"""Ways to networks of one space that trade accuracy against latency, all by the same predictions: one fixed
network, stages one after the other, all genes together.

The stages are those of the pipeline that APQ compares itself with (Wang et al. 2020, arXiv:2006.08509):
architecture as ProxylessNAS, then channels as AMC, then bits as HAQ. What each of those searches with is
replaced by the engine that the joint search has, so that only the order of decisions differs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from nas.problem.costs import Costs
from nas.search.loop import search
from nas.search.pareto import Matrix, non_dominated
from nas.search.searcher import make_searcher
from predictors.predictor import Predictor
from supernet.families.family import Family
from supernet.space.space import Choice, Genomes, Kind, SearchSpace

Floats = NDArray[np.float64]

ARCHITECTURE: Kind = "architecture"
PRUNING: Kind = "pruning"
PRECISION: Kind = "precision"
WORST = (1.0, 0.0)  # seconds and accuracy: no network is so slow
BATCH = 200  # evaluations between two tells: the smallest stages have few
ARCHITECTURES = 6  # that the first stage hands on, spread evenly along its front
KEPT = (1.0, 0.85, 0.7)  # of an architecture's latency in fp32, that the second stage prunes it to
WIDTHS = (1 / 2, 2 / 3, 5 / 6, 1.0)  # of the largest channels, for the fixed network
PLAIN_KERNEL = 3


@dataclass(frozen=True, eq=False)
class Slice:
    """The networks of a space that share some of their genes.

    Attributes:
        whole: the space.
        genome: (g,) one of its networks; what is not free is as there.
        kinds: of the choices that are free.
    """

    whole: SearchSpace
    genome: Genomes
    kinds: tuple[Kind, ...]

    @cached_property
    def _living(self) -> dict[int, Choice]:
        """By column, free choices that can be alive, with those of their conditions that are still open."""
        free_choices: dict[int, Choice] = {}
        for column, choice in enumerate(self.whole.choices):
            open_if = self._open_conditions(choice, free_choices)
            if choice.kind in self.kinds and open_if is not None:
                free_choices[column] = replace(choice, active_if=open_if)
        return free_choices

    def _open_conditions(
        self, choice: Choice, free: Mapping[int, Choice]
    ) -> tuple[tuple[str, tuple[int | str, ...]], ...] | None:
        """What still decides whether a choice is alive; None where it is dead."""
        still: list[tuple[str, tuple[int | str, ...]]] = []
        for name, alive in choice.active_if:
            column = self.whole.columns[name]
            parent = self.whole.choices[column]
            if column in free:
                still.append((name, alive))
                continue
            before = self._open_conditions(parent, free)
            if parent.kind in self.kinds or before is None or self._option(column) not in alive:
                return None
            still += before
        return tuple(still)

    def _option(self, column: int) -> int | str:
        return self.whole.choices[column].options[int(self.genome[column])]

    @cached_property
    def space(self) -> SearchSpace:
        """Of the free choices alone."""
        return SearchSpace(self.whole.family, tuple(self._living.values()))

    def widen(self, genomes: Genomes) -> Genomes:
        """(n, k) genomes of `space` -> (n, g) canonical genomes of the whole."""
        rows = np.repeat(self.genome[None], len(genomes), axis=0)
        rows[:, list(self._living)] = genomes
        return self.whole.canonical(rows)

    def narrow(self, genomes: Genomes) -> Genomes:
        """(n, g) genomes of the whole -> the free part (n, k)."""
        return self.space.canonical(genomes[:, list(self._living)])


@dataclass(frozen=True, eq=False)
class Front:
    """Networks, none better than another in both.

    Attributes:
        genomes: (n, g), fastest first.
        latency_s, accuracy: (n,).
    """

    genomes: Genomes
    latency_s: Floats
    accuracy: Floats

    @classmethod
    def of(cls, genomes: Genomes, latency_s: Floats, accuracy: Floats) -> "Front":
        """Those of the networks that no other is better than."""
        best = np.flatnonzero(non_dominated(np.stack((latency_s, -accuracy), axis=1)))
        best = best[np.argsort(latency_s[best], kind="stable")]
        return cls(genomes[best], latency_s[best], accuracy[best])

    def within(self, limit_s: float) -> int:
        """The row of the best network within a latency; the fastest where none is."""
        return max(0, int(np.searchsorted(self.latency_s, limit_s * (1 + 1e-12), side="right")) - 1)


def union(fronts: Iterable[Front]) -> Front:
    """The best of all of them."""
    every = list(fronts)
    return Front.of(
        np.concatenate([front.genomes for front in every]),
        np.concatenate([front.latency_s for front in every]),
        np.concatenate([front.accuracy for front in every]),
    )


def spread(front: Front, k: int, low_s: float = 0.0, high_s: float = np.inf) -> list[int]:
    """Up to `k` rows whose latencies are evenly apart in proportion, between two latencies."""
    ends = max(low_s, front.latency_s[0]), min(high_s, front.latency_s[-1])
    return list(dict.fromkeys(front.within(limit_s) for limit_s in np.geomspace(*ends, k)))


@dataclass(frozen=True, eq=False)
class Task:
    """A space with what is believed of its networks.

    Attributes:
        family: of the networks.
        costs: predicted latency among them.
        predictor: of accuracy.
    """

    family: Family
    costs: Costs
    predictor: Predictor

    @property
    def space(self) -> SearchSpace:
        return self.family.space()

    def corner(self, name: str) -> Genomes:
        """(g,) of one end of the space, such as `largest/int8`."""
        return np.array(self.family.extremes()[name].genes, np.int16)

    def latency_s(self, genomes: Genomes) -> Floats:
        """(n,) predicted seconds; infinite where the device cannot run a network."""
        return self.costs.predict(genomes)["latency"]

    def accuracy(self, genomes: Genomes) -> Floats:
        """(n,) predicted shares."""
        return np.clip(self.predictor.predict(genomes).mean, 0.0, 1.0)

    def front(self, genomes: Genomes) -> Front:
        """The best of some networks."""
        return Front.of(genomes, self.latency_s(genomes), self.accuracy(genomes))

    def uniform(self, genomes: Genomes, fmt: str) -> Genomes:
        """The same architectures with every layer in one format."""
        columns = [column for column, choice in enumerate(self.space.choices) if choice.kind == PRECISION]
        changed = genomes.copy()
        for column in columns:
            changed[:, column] = self.space.choices[column].options.index(fmt)
        return self.space.canonical(changed)

    @cached_property
    def formats(self) -> tuple[str, ...]:
        """Number formats that a layer can have."""
        every = [choice.options for choice in self.space.choices if choice.kind == PRECISION]
        return tuple(map(str, every[0]))

    def search(self, genome: Genomes, kinds: tuple[Kind, ...], budget: int, seed: int) -> Front:
        """The predicted front of networks that differ from `genome` (g,) in choices of these kinds alone.

        The engine is told of the ends first and, where formats are free, of every uniform one.
        """
        part = Slice(self.space, genome, kinds)
        ends = np.array([c.genes for c in self.family.extremes().values()], np.int16)
        uniform = [self.uniform(genome[None], fmt) for fmt in self.formats] if PRECISION in kinds else []
        initial = part.narrow(np.concatenate([genome[None], ends, *uniform]))
        searcher = make_searcher("evolution", part.space, seed=seed, initial=np.unique(initial, axis=0))
        evaluate = partial(self._evaluate, part)
        result = search(searcher, evaluate, budget=budget, batch=min(BATCH, budget), reference=WORST)
        return Front.of(part.widen(result.genomes), result.objectives[:, 0], -result.objectives[:, 1])

    def _evaluate(self, part: Slice, genomes: Genomes) -> tuple[Matrix, Floats]:
        whole = part.widen(genomes)
        latency_s = self.latency_s(whole)
        failed = np.where(np.isfinite(latency_s), 0.0, np.inf)
        return np.stack((latency_s, -self.accuracy(whole)), axis=1), failed


# -- the three ways ----------------------------------------------------------------------------------------


def fixed_networks(task: Task) -> Genomes:
    """(w, g) the plain network of the space: kernels of 3 where there are any, full depth, the largest image,
    int8 everywhere, and channels of `WIDTHS`. Nothing is searched.
    """
    space, rows = task.space, []
    for width in WIDTHS:
        genome = task.corner("largest/int8")
        for column, choice in enumerate(space.choices):
            if choice.role == "kernel" and PLAIN_KERNEL in choice.options:
                genome[column] = choice.options.index(PLAIN_KERNEL)
            elif choice.kind == PRUNING:
                channels = width * max(map(int, choice.options))
                genome[column] = int(np.abs(np.array(choice.options, float) - channels).argmin())
        rows.append(genome)
    return np.unique(space.canonical(np.array(rows, np.int16)), axis=0)


def joint(task: Task, budget: int, seed: int) -> Front:
    """All genes together."""
    return task.search(task.corner("largest/fp32"), (ARCHITECTURE, PRUNING, PRECISION), budget, seed)


def sequential(task: Task, budget: int, seed: int) -> Front:
    """Architecture in fp32 without pruning, then the expanded channels in fp32, then formats.

    Each stage has a third of the evaluations, shared evenly by the networks that it is given.
    """
    third = budget // 3
    first = task.search(task.corner("largest/fp32"), (ARCHITECTURE,), third, seed)
    architectures = [first.genomes[row] for row in spread(first, ARCHITECTURES)]
    each = third // len(architectures)
    pruned: list[Genomes] = []
    for i, genome in enumerate(architectures):
        front = task.search(genome, (PRUNING,), each, seed + 100 * (i + 1))
        whole_s = float(task.latency_s(genome[None])[0])
        rows = dict.fromkeys(front.within(share * whole_s) for share in KEPT)
        pruned += [front.genomes[row] for row in rows]
    return _formats_of(task, pruned, third, seed)


def _formats_of(task: Task, networks: Sequence[Genomes], budget: int, seed: int) -> Front:
    """The last stage: what formats make of networks in fp32."""
    each = budget // len(networks)
    return union(
        task.search(genome, (PRECISION,), each, seed + 10_000 + i) for i, genome in enumerate(networks)
    )


# -- what of the joint search it is that matters ----------------------------------------------------------


def formats_last(task: Task, budget: int, seed: int) -> Front:
    """Architecture and expanded channels together in fp32, then formats."""
    first = task.search(task.corner("largest/fp32"), (ARCHITECTURE, PRUNING), budget // 2, seed)
    rows = spread(first, ARCHITECTURES * len(KEPT))
    return _formats_of(task, [first.genomes[row] for row in rows], budget // 2, seed)


def one_format(task: Task, budget: int, seed: int, *, fmt: str) -> Front:
    """Architecture and expanded channels together, every layer in one format."""
    return task.search(task.corner(f"largest/{fmt}"), (ARCHITECTURE, PRUNING), budget, seed)


def unpruned(task: Task, budget: int, seed: int) -> Front:
    """Architecture and formats together, all expanded channels kept."""
    return task.search(task.corner("largest/fp32"), (ARCHITECTURE, PRECISION), budget, seed)


def one_architecture(task: Task, budget: int, seed: int) -> Front:
    """Expanded channels and formats together, of the largest architecture."""
    return task.search(task.corner("largest/fp32"), (PRUNING, PRECISION), budget, seed)


Method = Callable[[Task, int, int], Front]  # task, evaluations, seed
METHODS: Mapping[str, Method] = {"joint": joint, "sequential": sequential}
PARTS: Mapping[str, Method] = {
    "architecture and pruning in fp32, then formats": formats_last,
    "architecture and pruning, int8 everywhere": partial(one_format, fmt="int8"),
    "architecture and pruning, fp32 everywhere": partial(one_format, fmt="fp32"),
    "architecture and formats, no pruning": unpruned,
    "pruning and formats, largest architecture": one_architecture,
}

"""What a search algorithm must offer, and the registry of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import load, names
from nas.search.repair import Repair
from supernet.space.space import Genomes, SearchSpace

SEARCHERS: Mapping[str, str] = {
    "evolution": "nas.search.algorithms.evolution:Evolution",
    "local-moves": "nas.search.algorithms.local_moves:LocalMoves",
    "nsga2": "nas.search.algorithms.pymoo_nsga:PymooNsga2",
    "nsga3": "nas.search.algorithms.pymoo_nsga:PymooNsga3",
    "rnsga2": "nas.search.algorithms.pymoo_nsga:PymooRnsga2",
    "optuna-nsga2": "nas.search.algorithms.optuna_samplers:OptunaNsga2",
    "tpe": "nas.search.algorithms.optuna_samplers:OptunaTpe",
    "aging": "nas.search.algorithms.aging_evolution:AgingEvolution",
    "random": "nas.search.algorithms.random_search:RandomSearch",
}


@dataclass(frozen=True)
class Pace:
    """How many candidates an engine is given where nothing was said, and about how long one takes it."""

    budget: int
    candidate_s: float


USUAL = Pace(40_000, 5e-5)
SLOWER: Mapping[str, Pace] = {"optuna-nsga2": Pace(2_000, 5e-3), "tpe": Pace(1_000, 2e-2)}  # measured

MILP = "milp"  # no searcher: number formats of one architecture are allocated exactly, nas.stages.allocate


class Searcher(Protocol):
    """Proposes networks and learns how good they are.

    Deterministic given its seed and what it was told: asked and told the same again, it goes the same way.
    The random numbers of ask number `i` come from `default_rng([seed, i])`, a seed of its own
    (`hw_profiles.streams`), so a run is resumed by
    replaying it from stored answers.
    """

    def ask(self, n: int) -> Genomes:
        """Return up to `n` canonical genomes (n, g), none of which it asked for before.

        Fewer than `n`, down to 0 rows, when the space is exhausted.
        """
        ...

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        """Learn objectives (n, m), less is better, and violation (n,) of the limits, 0 where feasible.

        Rows may be any of those asked for, or others; a row with a NaN or an infinity is a failed evaluation.
        """
        ...


@runtime_checkable
class ReferencePointSearcher(Protocol):
    """A searcher that heads for points of the front."""

    def set_reference_points(self, points: NDArray[np.float64]) -> None:
        """Head for points (k, m) of minimised objectives; NaN stands for the best value that was seen."""
        ...


class MakeSearcher(Protocol):
    """How every registered searcher is made.

    It asks for `initial` (k, g) genomes before any other, and passes what it proposes through `repair`,
    which moves networks inside the limits that are known without evaluating; `nas.search.deduplication` does
    both.
    """

    def __call__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        initial: Genomes | None = None,
        repair: Repair | None = None,
    ) -> Searcher: ...


def make_searcher(
    name: str,
    space: SearchSpace,
    *,
    seed: int,
    initial: Genomes | None = None,
    repair: Repair | None = None,
) -> Searcher:
    """Return the searcher registered as `name`, at its start.

    Raises:
        TrilobitError: no such searcher.
    """
    make: MakeSearcher = load("trilobit.searchers", SEARCHERS, name)
    return make(space, seed=seed, initial=initial, repair=repair)


def check_engine(name: str) -> None:
    """Check that a search can run with this.

    Raises:
        TrilobitError: it is neither a registered searcher nor `milp`.
    """
    searchers = {*names("trilobit.searchers", SEARCHERS), MILP}
    if name not in searchers:
        raise TrilobitError(f"unknown searcher {name!r}; known: {', '.join(sorted(searchers))}")

"""Samplers of Optuna (Akiba et al. 2019, arXiv:1907.10902) by ask and tell, on a study in memory.

For comparison, and for searches of a few thousand networks: each proposal is built gene by gene in Python,
5 ms with NSGA-II and 20 ms and more with TPE, which fits its densities anew to all that it was told.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import Trial, TrialState

from nas.search.pareto import finite_rows
from nas.search.repair import Repair
from nas.search.sampling_searcher import SamplingSearcher
from supernet.space.space import Genomes, SearchSpace, row_keys

POPULATION = 50  # of NSGA-II


class _OptunaSearch(SamplingSearcher):
    """See `nas.search.searcher.Searcher`. Every gene is a categorical parameter, and what Optuna proposes is
    made canonical.

    What it proposes again, as TPE often does, gets one gene changed: asking until something new comes would
    take a hundred proposals for one. The trial of the proposal fails then.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        initial: Genomes | None = None,
        repair: Repair | None = None,
    ) -> None:
        super().__init__(space, seed=seed, initial=initial, repair=repair)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sampler = self._make_sampler()
        self._genes: dict[str, BaseDistribution] = {
            choice.name: CategoricalDistribution(range(len(choice.options))) for choice in space.choices
        }
        self._study: optuna.Study | None = None  # from the first answers on: it must know how many objectives
        self._proposed: list[tuple[bytes, Trial]] = []
        self._asked: dict[bytes, Trial] = {}  # not told yet
        self._known: set[bytes] = set()

    @abstractmethod
    def _make_sampler(self) -> BaseSampler:
        """Return Optuna's sampler, at its start."""

    def ask(self, n: int) -> Genomes:
        rows = super().ask(n)
        keys = set(_keys(rows))
        self._known |= keys
        for key, trial in self._proposed:
            if key in keys and key not in self._asked:
                self._asked[key] = trial
            elif self._study is not None:
                self._study.tell(trial, state=TrialState.FAIL)
        self._proposed = []
        return rows

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        valid = finite_rows(np.column_stack((objectives, violation)))
        if self._study is None and valid.any():
            directions = ["minimize"] * objectives.shape[1]
            self._study = optuna.create_study(directions=directions, sampler=self._sampler)
        if self._study is None:
            return
        for row, key in enumerate(_keys(genomes)):
            trial = self._asked.pop(key, None)
            if valid[row]:
                trial = trial or self._begun(self._study, genomes[row])
                trial.set_constraint("limits", float(violation[row]))
                self._study.tell(trial, objectives[row].tolist())
            elif trial is not None:
                self._study.tell(trial, state=TrialState.FAIL)

    def _begun(self, study: optuna.Study, genome: Genomes) -> Trial:
        """Return a trial of a network that Optuna did not propose."""
        study.enqueue_trial(dict(zip(self._genes, genome.tolist(), strict=True)))
        return study.ask(self._genes)

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """Return `n` canonical genomes, not necessarily new."""
        if self._study is None:
            return self._space.sample(n, rng=rng)
        trials = [self._study.ask(self._genes) for _ in range(n)]
        genomes = np.array([[*trial.params.values()] for trial in trials], np.int16)
        genomes = self._space.canonical(genomes.reshape(n, len(self._genes)))
        keys = _keys(genomes)
        self._proposed += zip(keys, trials, strict=True)
        again = np.array([key in self._known or key in keys[:row] for row, key in enumerate(keys)], bool)
        return np.where(again[:, None], self._space.mutate(genomes, 0.0, rng=rng), genomes)


class OptunaNsga2(_OptunaSearch):
    """Optuna's NSGA-II."""

    def _make_sampler(self) -> BaseSampler:
        return NSGAIISampler(population_size=POPULATION, seed=self._seed)


class OptunaTpe(_OptunaSearch):
    """Tree-structured Parzen estimators with several objectives: Ozaki et al. 2022, doi:10.1613/jair.1.13188.

    Multivariate: genes are drawn together, which is also the faster way.
    """

    def _make_sampler(self) -> BaseSampler:
        return TPESampler(multivariate=True, constant_liar=False, seed=self._seed)


def _keys(genomes: Genomes) -> Sequence[bytes]:
    """Return one key per row, equal where rows are equal."""
    keys: list[bytes] = row_keys(genomes.astype(np.int16)).tolist()
    return keys

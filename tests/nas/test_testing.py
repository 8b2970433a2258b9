"""The contracts that are shipped for plug-ins: a made-up one passes, a broken one is told what it breaks."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from nas.search.repair import Repair
from nas.testing import BrokenContractError, check_predictor, check_searcher
from predictors.predictor import Prediction
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace, row_keys


@dataclass
class Walk:
    """Proposes random networks that it has not proposed before."""

    space: SearchSpace
    seed: int
    initial: Genomes | None = None
    repair: Repair | None = None
    asks: int = 0
    known: set[Any] = field(default_factory=set)

    def ask(self, n: int) -> Genomes:
        """Return up to `n` new networks."""
        rng = np.random.default_rng([self.seed, self.asks])
        drawn = self.space.canonical(self.space.sample(max(4_000, n), rng=rng))
        if self.initial is not None and not self.asks:
            drawn = np.concatenate([self.initial, drawn])
        self.asks += 1
        fresh = []
        for genome, key in zip(drawn, row_keys(drawn).tolist(), strict=True):
            if key not in self.known and len(fresh) < n:
                self.known.add(key)
                fresh.append(genome)
        return np.array(fresh, np.int16).reshape(len(fresh), len(self.space.choices))

    def tell(self, genomes: Genomes, objectives: np.ndarray, violation: np.ndarray) -> None:
        """Learn nothing."""


class Forgetful(Walk):
    """Proposes what comes, again and again, by a clock of its own."""

    def ask(self, n: int) -> Genomes:
        """Return any networks."""
        return self.space.sample(n, rng=np.random.default_rng())


@dataclass(frozen=True)
class Guess:
    """Says the same of every network, and is sure of it."""

    space: SearchSpace
    seed: int
    costs: CostTable | None = None

    def fit(self, genomes: Genomes, targets: np.ndarray) -> "Guess":
        """Learn nothing."""
        return self

    def predict(self, genomes: Genomes) -> Prediction:
        """Return 0."""
        return Prediction(np.zeros(len(genomes)), np.zeros(len(genomes)))


def test_a_made_up_searcher_passes() -> None:
    check_searcher(Walk)  # type: ignore[arg-type]


def test_a_broken_searcher_is_told_every_promise_that_it_breaks() -> None:
    with pytest.raises(BrokenContractError) as broken:
        check_searcher(Forgetful)  # type: ignore[arg-type]
    lines = str(broken.value).splitlines()
    assert lines[0] == f"{len(lines) - 1} of 9 promises of a searcher are broken:"
    assert any("another way for another: two searchers of one seed differ: is randomness" in x for x in lines)
    assert any("Ask for initial genomes before any other: the first networks are not" in x for x in lines)
    assert any("Search a space of 144 networks completely, and end: " in line for line in lines)


def test_a_broken_predictor_is_told_every_promise_that_it_breaks() -> None:
    with pytest.raises(BrokenContractError) as broken:
        check_predictor(Guess)  # type: ignore[arg-type]
    text = str(broken.value)
    for words in ("a std is not positive", "Kendall's tau is nan", "0.25 is predicted as", "is not fitted"):
        assert words in text

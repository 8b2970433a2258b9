"""The loop around real evaluations: better than searching without predictions, and repeatable."""

import numpy as np
import pytest

from nas.search.algorithms.expensive import (
    DEFAULT,
    LINAS,
    Plan,
    Posterior,
    Predict,
    Shortlist,
    search_expensive,
)
from nas.search.loop import search
from nas.search.pareto import Matrix, hypervolume
from nas.search.points import Points
from nas.search.searcher import make_searcher
from supernet.space.space import Choice, Genomes, SearchSpace, unique_rows

SPACE = SearchSpace("deep", tuple(Choice(f"c{i}", (0, 1, 2)) for i in range(20)))
REFERENCE = (0.0, 25.0)
VALUE, WEIGHT = np.random.default_rng(0).random((2, 20))


def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
    """Value against weight of chosen items, with a squared term so that genes interact."""
    total = genomes @ VALUE + 0.05 * (genomes[:, 1:] * genomes[:, :-1]).sum(axis=1)
    return np.column_stack((-total, genomes @ WEIGHT)), np.zeros(len(genomes))


def fit(points: Points) -> Predict:
    """Least squares for the value; the weight is known."""
    hot = np.column_stack((SPACE.one_hot(points.genomes), np.ones(len(points))))
    solved = np.linalg.lstsq(hot, points.objectives[:, 0], rcond=1e-3)[0]
    error = float(np.std(hot @ solved - points.objectives[:, 0])) + 0.1

    def predict(genomes: Genomes) -> Posterior:
        mean = np.column_stack((SPACE.one_hot(genomes), np.ones(len(genomes)))) @ solved
        std = np.column_stack((np.full(len(genomes), error), np.zeros(len(genomes))))
        return Posterior(np.column_stack((mean, genomes @ WEIGHT)), std, np.zeros(len(genomes)))

    return predict


def test_finds_more_than_evolution_with_as_many_evaluations_and_the_same_again() -> None:
    found = search_expensive(SPACE, fit, evaluate, budget=70, reference=REFERENCE, seed=0)
    plain = search(make_searcher("evolution", SPACE, seed=0), evaluate, budget=70, batch=20,
                   reference=REFERENCE)  # fmt: skip
    assert len(unique_rows(found.genomes)) == len(found) == 70
    assert hypervolume(found.objectives, REFERENCE) > 1.02 * plain.hypervolumes[-1]
    again = search_expensive(SPACE, fit, evaluate, budget=70, reference=REFERENCE, seed=0)
    np.testing.assert_array_equal(again.genomes, found.genomes)


def test_failed_evaluations_are_left_out_of_fits_and_fronts() -> None:
    def sometimes(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        objectives, violation = evaluate(genomes)
        objectives[genomes[:, 0] == 1] = np.nan
        return objectives, violation

    def careful(points: Points) -> Predict:
        assert np.isfinite(points.objectives).all()
        return fit(points)

    found = search_expensive(SPACE, careful, sometimes, budget=60, reference=REFERENCE, seed=1)
    assert len(found) == 60


def test_small_budgets_and_wrong_ones() -> None:
    assert len(search_expensive(SPACE, fit, evaluate, budget=5, reference=REFERENCE, seed=0)) == 5
    assert DEFAULT.first > 5
    with pytest.raises(ValueError, match="at least 1"):
        search_expensive(SPACE, fit, evaluate, budget=0, reference=REFERENCE, seed=0)


def test_a_shortlist_holds_nothing_outside_the_limits_and_offers_nothing_known() -> None:
    def limited(genomes: Genomes) -> Posterior:
        posterior = fit(Points(SPACE.sample(50, rng=np.random.default_rng(1)), *evaluated))(genomes)
        return Posterior(posterior.mean, posterior.std, np.maximum(posterior.mean[:, 1] - 9, 0))

    evaluated = evaluate(SPACE.sample(50, rng=np.random.default_rng(1)))
    shortlist, genomes = Shortlist(limited), SPACE.sample(500, rng=np.random.default_rng(2))
    assert len(shortlist.choose(genomes[:3], evaluated[0], np.array(REFERENCE), 3)) == 0
    shortlist.evaluate(genomes[:250])
    shortlist.evaluate(genomes[250:])
    empty = np.empty((0, 2))
    chosen = shortlist.choose(genomes[:0], empty, np.array(REFERENCE), 8)
    assert len(chosen) == 8
    assert (limited(chosen).violation == 0).all()
    others = shortlist.choose(chosen, empty, np.array(REFERENCE), 8)
    assert len(unique_rows(np.concatenate((chosen, others)))) == 16


@pytest.mark.parametrize("plan", [DEFAULT, LINAS])
def test_of_a_pool_all_and_nothing_else_is_evaluated(plan: Plan) -> None:
    pool = SPACE.sample(75, rng=np.random.default_rng(3))
    found = search_expensive(
        SPACE, fit, evaluate, budget=100, reference=REFERENCE, seed=0, plan=plan, pool=pool
    )
    assert len(found) == len(pool)
    assert set(map(bytes, found.genomes)) == set(map(bytes, pool))


def test_means_alone_count_without_exploration() -> None:
    """The deviations of what is predicted change nothing; with exploration they do."""

    def with_std(std: float) -> Predict:
        def predict(genomes: Genomes) -> Posterior:
            mean = evaluate(genomes)[0]
            wide = std * (1 + genomes[:, :1]) * np.array([[1.0, 0.0]])
            return Posterior(mean, wide, np.zeros(len(genomes)))

        return predict

    genomes, nothing = SPACE.sample(300, rng=np.random.default_rng(4)), np.empty((0, 2))

    def chosen(std: float, exploration: float) -> list[bytes]:
        shortlist = Shortlist(with_std(std), exploration)
        shortlist.evaluate(genomes)
        return list(map(bytes, shortlist.choose(genomes[:0], nothing, np.array(REFERENCE), 8)))

    assert chosen(0.1, 0.0) == chosen(9.0, 0.0)
    assert chosen(0.1, 1.0) != chosen(9.0, 1.0)

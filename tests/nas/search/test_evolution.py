"""Evolution: its parts, and that it does what the others cannot."""

import numpy as np

from nas.pareto import Matrix
from nas.search.evolution import spread_sample, survivors, tournament
from nas.search.loop import search
from nas.search.points import Points
from nas.search.searcher import make_searcher
from supernet.space import Choice, Genomes, SearchSpace

SPACE = SearchSpace("deep", tuple(Choice(f"c{i}", (0, 1, 2)) for i in range(40)))
RIDGE = Points(
    np.arange(6, dtype=np.int16)[:, None],
    np.array([[0, 9], [9, 0], [4, 4], [4.1, 3.9], [5, 5], [0, 0]]),
    np.eye(6)[5],
)


def knapsack(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
    """Value against weight of chosen items, with a squared term so that genes interact."""
    rng = np.random.default_rng(0)
    value, weight = rng.random((2, 40))
    total = genomes @ value + 0.05 * (genomes[:, 1:] * genomes[:, :-1]).sum(axis=1)
    return np.column_stack((-total, genomes @ weight)), np.zeros(len(genomes))


def test_spread_sample_reaches_from_the_smallest_to_the_largest() -> None:
    genomes = spread_sample(SPACE, 200, rng=np.random.default_rng(0))
    assert (genomes[0] == 0).all()
    assert (genomes[1] == 2).all()
    assert np.histogram(genomes.mean(axis=1), bins=4, range=(0, 2))[0].min() > 20
    assert [len(spread_sample(SPACE, n, rng=np.random.default_rng(0))) for n in (0, 1, 2)] == [0, 1, 2]


def test_survivors_keep_the_ends_and_drop_the_crowded_the_dominated_and_the_infeasible() -> None:
    assert sorted(survivors(RIDGE, 3).genomes[:, 0][:2].tolist()) == [0, 1]
    assert sorted(survivors(RIDGE, 4).genomes[:, 0].tolist()) == [0, 1, 2, 3]
    assert sorted(survivors(RIDGE, 5).genomes[:, 0].tolist()) == [0, 1, 2, 3, 4]


def test_tournaments_prefer_better_rows() -> None:
    wins = np.bincount(tournament(RIDGE, 6000, rng=np.random.default_rng(0)), minlength=6)
    assert wins[:4].min() > wins[4] > wins[5] > 0


def test_beats_nsga2_and_random_search() -> None:
    volumes = {
        name: np.mean(
            [
                search(
                    make_searcher(name, SPACE, seed=seed), knapsack, budget=3000, batch=100, reference=[0, 50]
                ).hypervolumes[-1]
                for seed in range(3)
            ]
        )
        for name in ("evolution", "nsga2", "random")
    }
    assert volumes["evolution"] > volumes["nsga2"] > volumes["random"]

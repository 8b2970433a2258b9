"""Evolution: its parts, and that it does what the others cannot."""

import numpy as np

from nas.search.algorithms.evolution import in_order, mutate, tilted_sample, tournament, two_point_crossover
from nas.search.loop import search
from nas.search.pareto import Matrix
from nas.search.points import Points, constrained_rank
from nas.search.searcher import make_searcher
from supernet.space.space import Choice, Genomes, SearchSpace

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
    genomes = tilted_sample(SPACE, 200, rng=np.random.default_rng(0))
    assert (genomes[0] == 0).all()
    assert (genomes[1] == 2).all()
    assert np.histogram(genomes.mean(axis=1), bins=4, range=(0, 2))[0].min() > 20
    assert [len(tilted_sample(SPACE, n, rng=np.random.default_rng(0))) for n in (0, 1, 2)] == [0, 1, 2]


def test_the_ends_come_first_then_the_crowded_the_dominated_and_the_infeasible() -> None:
    order = in_order(RIDGE, constrained_rank(RIDGE)).genomes[:, 0].tolist()
    assert sorted(order[:2]) == [0, 1]
    assert sorted(order[2:4]) == [2, 3]
    assert order[4:] == [4, 5]


def test_tournaments_prefer_earlier_rows() -> None:
    wins = np.bincount(tournament(4, 6000, rng=np.random.default_rng(0)), minlength=4)
    assert (np.diff(wins) < 0).all()
    assert wins[3] > 0
    assert tournament(0, 0, rng=np.random.default_rng(0)).shape == (0,)


def test_a_child_of_two_has_a_run_of_genes_from_one_and_the_rest_from_the_other() -> None:
    mothers, fathers = np.zeros((2000, 40), np.int16), np.full((2000, 40), 2, np.int16)
    children = two_point_crossover(SPACE, mothers, fathers, rng=np.random.default_rng(0))
    assert set(np.unique(children)) == {0, 2}
    assert (np.abs(np.diff(children, axis=1, prepend=0, append=0)) == 2).sum(axis=1).max() == 2
    assert np.ptp(children.mean(axis=0)) < 1.1
    assert (children[:, [0, -1]] == 2).any(axis=0).all()


def test_as_many_living_genes_change_as_were_wanted_at_most_and_nothing_else() -> None:
    deep = ((("c0", (1,)),), ())
    choices = tuple(Choice(f"c{i}", (0, 1, 2), active_if=deep[i % 2] if i > 1 else ()) for i in range(30))
    space, rng = SearchSpace("half", (*choices, Choice("only", (1,)))), np.random.default_rng(0)
    genomes = space.sample(400, rng=rng)
    genomes = genomes[genomes[:, 0] == 0]
    changed = mutate(space, genomes, np.repeat([0, 1, 2, 3], 400)[: len(genomes) * 4 : 4], rng=rng)
    np.testing.assert_array_equal(space.canonical(changed), changed)
    kept = changed[:, 0] == 0  # the others woke genes up
    moved = (changed != genomes).sum(axis=1)[kept]
    counts = np.repeat([0, 1, 2, 3], 400)[: len(genomes) * 4 : 4][kept]
    assert (moved <= counts).all()
    assert moved[counts == 1].mean() > 0.8


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

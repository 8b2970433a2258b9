"""Repair: networks outside a limit are moved inside, and stay in the space."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nas.search.loop import search
from nas.search.pareto import Matrix
from nas.search.repair import TowardsAnchor, find_anchor, neighbours
from nas.search.searcher import make_searcher
from supernet.space.space import Choice, Genomes, SearchSpace, unique_rows

DEEP = (("depth", (2, 3)),)
SPACE = SearchSpace(
    "conditional",
    (
        Choice("depth", (1, 2, 3)),
        *(Choice(f"w{i}", (8, 16, 24, 32), active_if=DEEP if i > 5 else ()) for i in range(12)),
        Choice("fixed", (1,)),
    ),
)
WEIGHTS = np.random.default_rng(0).random((2, len(SPACE.choices)))
WEIGHTS[1, ::3] *= -1  # the second cost is lowest where some genes are last


def costs(genomes: Genomes) -> NDArray[np.float64]:
    return genomes @ WEIGHTS.T + np.array([1.0, 9.0])


def limited(share: float) -> TowardsAnchor:
    """Both costs at most this share of the way from their least (about) to their most (about)."""
    sample = costs(SPACE.sample(2000, rng=np.random.default_rng(9)))
    low, high = sample.min(axis=0), sample.max(axis=0)
    limits = low + share * (high - low)
    return TowardsAnchor(SPACE, lambda genomes: costs(genomes) / limits - 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.3, 0.9))
def test_everything_ends_inside_the_limits_and_the_space(seed: int, share: float) -> None:
    repair, rng = limited(share), np.random.default_rng(seed)
    genomes = SPACE.sample(100, rng=rng)
    repaired = repair(genomes, rng)
    assert repair.reachable
    assert (repair._excess(repaired) <= 0).all()
    np.testing.assert_array_equal(SPACE.canonical(repaired), repaired)
    assert repaired.dtype == np.int16
    assert ((repaired >= 0) & (repaired < SPACE.cardinalities)).all()
    inside = (repair._excess(genomes) <= 0).all(axis=1)
    np.testing.assert_array_equal(repaired[inside], genomes[inside])


def test_rows_stop_near_the_limit_and_in_different_places() -> None:
    repair, rng = limited(0.5), np.random.default_rng(0)
    largest = np.tile((SPACE.cardinalities - 1).astype(np.int16), (200, 1))
    repaired = repair(SPACE.canonical(largest), rng)
    assert len(unique_rows(repaired)) > 150
    assert repair._excess(repaired).max(axis=1).mean() > -0.15


def test_nothing_moves_where_no_network_meets_the_limits() -> None:
    repair = TowardsAnchor(SPACE, lambda genomes: np.ones((len(genomes), 1)))
    genomes = SPACE.sample(10, rng=np.random.default_rng(0))
    assert not repair.reachable
    np.testing.assert_array_equal(repair(genomes, np.random.default_rng(0)), genomes)


def test_the_anchor_is_as_far_inside_as_gene_by_gene_steps_lead() -> None:
    anchor = find_anchor(SPACE, lambda genomes: costs(genomes)[:, 1:])
    np.testing.assert_allclose(costs(anchor[None])[0, 1], costs(neighbours(SPACE, anchor))[:, 1].min())
    known = np.full((1, len(SPACE.choices)), 0, np.int16)
    assert (find_anchor(SPACE, lambda genomes: genomes.sum(axis=1)[:, None] * 1.0, known) == 0).all()


def test_networks_that_the_device_cannot_run_are_no_anchor() -> None:
    def excess(genomes: Genomes) -> Matrix:
        total = genomes.sum(axis=1)[:, None] / 10 - 1.0
        return np.where(genomes[:, :1] == 0, np.inf, total)

    repair, rng = TowardsAnchor(SPACE, excess), np.random.default_rng(0)
    assert repair.reachable
    assert (excess(repair(SPACE.sample(50, rng=rng), rng)) <= 0).all()


def test_a_search_with_repair_evaluates_nothing_outside_and_finds_at_least_as_much() -> None:
    repair = limited(0.35)

    def evaluate(genomes: Genomes) -> tuple[Matrix, NDArray[np.float64]]:
        excess = repair._excess(genomes)
        value = -np.sqrt(genomes).sum(axis=1) - 0.3 * (genomes[:, 1:] * genomes[:, :-1]).sum(axis=1)
        return np.column_stack((value, costs(genomes)[:, 0])), np.maximum(excess, 0).sum(axis=1)

    found = {}
    for given_repair in (None, repair):
        searcher = make_searcher("evolution", SPACE, seed=0, repair=given_repair)
        found[given_repair] = search(searcher, evaluate, budget=600, batch=60, reference=[0.0, 40.0])
    again = make_searcher("evolution", SPACE, seed=0, repair=repair)
    assert (evaluate(again.ask(60))[1] == 0).all()
    assert found[repair].hypervolumes[-1] >= 0.999 * found[None].hypervolumes[-1]

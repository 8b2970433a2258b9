"""APQ's search, which ours is compared with: its operators, its limits, and that it searches."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nas.search.points import Points
from supernet.families.apq import INTEGER_FORMATS
from supernet.families.family import load_family
from supernet.space.space import Genomes, SearchSpace

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LIMIT = 300.0


@pytest.fixture(scope="module")
def apq() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        import apq_evolution
    return apq_evolution


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_family("apq-proxyless", in_channels=3, classes=10, formats=INTEGER_FORMATS).space()


def accuracy(genomes: Genomes) -> np.ndarray:
    """Grows with every gene, the later ones more."""
    return np.asarray(genomes @ np.linspace(1, 2, genomes.shape[1]))


def excess(genomes: Genomes, limit: float = LIMIT) -> np.ndarray:
    return np.asarray(genomes.sum(axis=1, keepdims=True) / limit - 1)


def parents(space: SearchSpace, n: int = 25) -> Genomes:
    return space.sample(n, rng=np.random.default_rng(3))


def test_a_unit_is_a_position_or_a_depth(apq: ModuleType, space: SearchSpace) -> None:
    groups = apq.positions(space)
    names = [choice.name for choice in space.choices]
    members = {group: [names[i] for i in np.flatnonzero(groups == group)] for group in set(groups.tolist())}
    assert sorted(map(len, members.values())) == [1] * 6 + [6] * 21  # 5 depths and the policy; positions
    for found in members.values():
        assert len({name.rpartition(".")[0][:5] for name in found}) == 1
    assert len(set(apq.single_genes(space).tolist())) == len(names)


@pytest.mark.parametrize("unit", ["positions", "single_genes"])
def test_a_tenth_of_the_units_is_drawn_again(apq: ModuleType, space: SearchSpace, unit: str) -> None:
    groups, parent = getattr(apq, unit)(space), parents(space, 1)
    made = apq.mutants(space, parent, 4000, groups=groups, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(made, space.canonical(made))
    column = space.columns["s0.b0.expanded"]  # always alive, of five options: a fifth is drawn as it was
    assert (made[:, column] != parent[0, column]).mean() == pytest.approx(0.1 * 4 / 5, abs=0.015)
    together = made[:, space.columns["s0.b0.kernel"]] != parent[0, space.columns["s0.b0.kernel"]]
    share = together[made[:, column] != parent[0, column]].mean()
    assert share == pytest.approx(2 / 3 if unit == "positions" else 0.1 * 2 / 3, abs=0.1)


def test_children_inherit_whole_positions(apq: ModuleType, space: SearchSpace) -> None:
    ends = np.stack([np.zeros(len(space.choices)), space.cardinalities - 1]).astype(np.int16)
    groups = apq.positions(space)
    made = apq.crossovers(space, ends, 300, groups=groups, rng=np.random.default_rng(0))
    of_last = made == ends[1]
    alive = space.active(made) & (space.cardinalities > 1)
    mixed = 0
    for genes, living in zip(of_last, alive, strict=True):
        for group in set(groups.tolist()):
            assert len(set(genes[living & (groups == group)].tolist())) <= 1
        mixed += 0 < genes[living].mean() < 1
    assert mixed > 100  # the other half has one parent twice


def test_rejected_networks_are_not_evaluated(apq: ModuleType, space: SearchSpace) -> None:
    asked: list[Genomes] = []

    def counted(genomes: Genomes) -> np.ndarray:
        asked.append(genomes)
        return accuracy(genomes)

    rng = np.random.default_rng(0)
    groups = apq.positions(space)
    done = apq.evolve(space, counted, excess, evaluations=950, groups=groups, rng=rng)
    assert [len(genomes) for genomes in asked] == [100] * 9 + [50]
    np.testing.assert_array_equal(np.concatenate(asked), done.genomes)
    assert (excess(done.genomes) <= 0).all()
    np.testing.assert_array_equal(done.objectives[:, 0], -accuracy(done.genomes))


def test_mutants_and_crossovers_both_stay_and_the_search_improves(
    apq: ModuleType, space: SearchSpace
) -> None:
    done = apq.evolve(
        space,
        accuracy,
        excess,
        evaluations=3000,
        groups=apq.positions(space),
        rng=np.random.default_rng(0),
    )
    generations = accuracy(done.genomes).reshape(-1, 100)
    assert generations[-1].max() > generations[0].max() * 1.04
    parent = apq.best(done[:100], apq.PARENTS).genomes
    crossed = done.genomes[100 + apq.MUTANTS : 200]  # every living gene of theirs is of one of the parents
    alive = space.active(crossed)
    assert all((~a | (c == parent).any(axis=0)).all() for a, c in zip(alive, crossed, strict=True))


def test_a_chained_search_reaches_limits_that_random_networks_do_not_meet(
    apq: ModuleType, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apq, "GIVEN_UP", 2_000)
    limits = [
        lambda genomes, limit=limit: excess(genomes, limit)
        for limit in (200.0, 160.0, 130.0, 100.0, 80.0, 65.0)
    ]

    def front(chained: bool) -> Points:
        found: Points = apq.evolve_front(
            space,
            accuracy,
            limits,
            evaluations=3600,
            groups=apq.single_genes(space),
            seed=0,
            chained=chained,
        )
        return found

    apart, chained = front(chained=False), front(chained=True)
    assert len(chained) == 3600
    assert chained.genomes.sum(axis=1).min() <= 65 < apart.genomes.sum(axis=1).min()
    np.testing.assert_array_equal(front(chained=True).genomes, chained.genomes)

"""What every searcher promises (`nas.Searcher`); a plug-in is what makes one, as it is registered."""

import numpy as np

from nas.search.loop import search
from nas.search.pareto import Matrix
from nas.search.searcher import MakeSearcher, Searcher, make_searcher
from nas.testing.contract import Contract, expect
from supernet.space.space import Choice, Genomes, SearchSpace, unique_rows

REFERENCE = [100.0, 100.0]


def staged_space(stages: int) -> SearchSpace:
    """Return a space of stages of one or two blocks, the second one conditional."""
    choices = []
    for s in range(stages):
        deep = ((f"s{s}.depth", (2,)),)
        choices += [Choice(f"s{s}.depth", (1, 2)), Choice(f"s{s}.b0", (0, 1, 2))]
        choices += [Choice(f"s{s}.b1", (0, 1, 2), active_if=deep)]
    return SearchSpace("staged", tuple(choices))


SMALL, LARGE = staged_space(2), staged_space(8)  # 144 and 429,981,696 networks


def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
    """Return cost against distance to a pattern; networks of cost below 3 are not allowed."""
    cost = genomes.sum(axis=1, dtype=np.float64)
    pattern = np.arange(genomes.shape[1]) % 3
    distance = np.abs(genomes - pattern).sum(axis=1)
    return np.column_stack((cost, distance + 0.1 * cost)), np.maximum(3 - cost, 0) / 3


def replay(searcher: Searcher, batches: int, n: int = 20) -> list[Genomes]:
    """Return what a searcher asks for when it is told the answers."""
    batches_asked = []
    for _ in range(batches):
        batches_asked.append(searcher.ask(n))
        searcher.tell(batches_asked[-1], *evaluate(batches_asked[-1]))
    return batches_asked


def asks_for_canonical_networks_once(make: MakeSearcher) -> None:
    """Ask for canonical networks of the space, each of them once."""
    genomes = np.concatenate(replay(make(LARGE, seed=1), 12))
    expect(genomes.shape == (240, len(LARGE.choices)), f"asked 12 times for 20 networks, got {genomes.shape}")
    expect(genomes.dtype == np.int16, f"genomes are int16, got {genomes.dtype}")
    expect(((genomes >= 0) & (genomes < LARGE.cardinalities)).all(), "a gene is outside its choice's options")
    expect((LARGE.canonical(genomes) == genomes).all(), "a genome is not canonical: use space.canonical")
    expect(len(unique_rows(genomes)) == len(genomes), "a network was asked for twice")


def depends_on_its_seed_alone(make: MakeSearcher) -> None:
    """Search the same way for the same seed, another way for another."""
    first, second, other = (np.concatenate(replay(make(LARGE, seed=seed), 8)) for seed in (7, 7, 8))
    expect((first == second).all(), "two searchers of one seed differ: is randomness drawn from elsewhere?")
    expect((first != other).any(), "another seed makes no difference")


def resumes_the_same_way(make: MakeSearcher) -> None:
    """Resume after 5 of 9 batches the same way when the stored answers are replayed."""
    uninterrupted = replay(make(LARGE, seed=3), 9)
    resumed = make(LARGE, seed=3)
    for genomes in uninterrupted[:5]:
        expect(np.array_equal(resumed.ask(20), genomes), "a replayed ask differs")
        resumed.tell(genomes, *evaluate(genomes))
    np.random.default_rng(0).random(100)  # somebody else's random numbers change nothing
    for expected, resumed_batch in zip(uninterrupted[5:], replay(resumed, 4), strict=True):
        expect(np.array_equal(expected, resumed_batch), "it goes another way after a resumed start")


def asks_for_initial_networks_first(make: MakeSearcher) -> None:
    """Ask for initial genomes before any other."""
    initial = LARGE.sample(7, rng=np.random.default_rng(0))
    genomes = make(LARGE, seed=0, initial=initial).ask(20)
    expect(len(genomes) == 20, f"asked for 20 networks, got {len(genomes)}")
    expect((genomes[:7] == initial).all(), "the first networks are not the initial ones, in their order")


def exhausts_a_small_space(make: MakeSearcher) -> None:
    """Search a space of 144 networks completely, and end."""
    result = search(make(SMALL, seed=0), evaluate, budget=1000, batch=25, reference=REFERENCE)
    expect((result.stopped, result.evaluations) == ("exhausted", SMALL.size),
        f"stopped as {result.stopped!r} after {result.evaluations} of {SMALL.size} networks")  # fmt: skip
    everything = make_searcher("random", SMALL, seed=5)
    exact = search(everything, evaluate, budget=1000, batch=1000, reference=REFERENCE)
    expect(np.array_equal(result.objectives, exact.objectives), "the front is not the space's own")
    expect(
        make(SMALL, seed=0).ask(500).shape == (SMALL.size, len(SMALL.choices)), "ask(500) is not all of it"
    )


def finds_networks_within_limits(make: MakeSearcher) -> None:
    """Find networks that meet the limits."""
    result = search(make(LARGE, seed=0), evaluate, budget=400, batch=40, reference=REFERENCE)
    expect(len(result.genomes), "no network within the limits")
    expect((evaluate(result.genomes)[1] == 0).all(), "a network beyond the limits is on the front")


def survives_failed_evaluations(make: MakeSearcher) -> None:
    """Keep on after failed evaluations, whose rows are NaN, even where all of them failed."""
    searcher = make(LARGE, seed=0)
    for failed in (1.0, 0.5, 0.0):
        genomes = searcher.ask(20)
        objectives, violation = evaluate(genomes)
        broken = np.arange(20) < 20 * failed
        objectives[broken], violation[broken] = np.nan, np.inf
        searcher.tell(genomes, objectives, violation)
    expect(len(searcher.ask(20)) == 20, "it asks for fewer networks after failures")


def takes_batches_of_any_size(make: MakeSearcher) -> None:
    """Try batches of any size: nothing told, one network asked for at a time."""
    searcher = make(LARGE, seed=0)
    searcher.tell(np.empty((0, len(LARGE.choices)), np.int16), np.empty((0, 2)), np.empty(0))
    genomes = np.concatenate(replay(searcher, 10, n=1))
    expect(
        len(unique_rows(genomes)) == 10, f"asked 10 times for one network, got {len(unique_rows(genomes))}"
    )


def works_where_nothing_is_feasible(make: MakeSearcher) -> None:
    """Search on where no network meets the limits, and remember the nearest."""

    def infeasible(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        return evaluate(genomes)[0], 1.0 + genomes.sum(axis=1)

    result = search(make(LARGE, seed=0), infeasible, budget=300, batch=30, reference=REFERENCE)
    expect(len(result.genomes) == 0, "an infeasible network is on the front")
    expect(len(result.nearest) == 1, "the nearest network is not remembered")


check_searcher = Contract[MakeSearcher](
    "searcher",
    (
        asks_for_canonical_networks_once,
        depends_on_its_seed_alone,
        resumes_the_same_way,
        asks_for_initial_networks_first,
        exhausts_a_small_space,
        finds_networks_within_limits,
        survives_failed_evaluations,
        takes_batches_of_any_size,
        works_where_nothing_is_feasible,
    ),
)

"""The Q-T score of spaces and the evolution over them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.all_spaces import all_spaces
from hw_profiles.errors import TrilobitError
from nas.search import space_design
from nas.search.space_design import (
    BATCH,
    BEST,
    BlockTable,
    DrawnNetworks,
    block_table,
    evolve,
    mutated,
    penalty,
    qt_score,
    random_spaces,
    scores_under,
    uniform_spaces,
)

STAGES, TYPES, WINDOWS = 3, 3, 3


def small_table(
    seed: int = 0, *, resolutions: int = 2, without: tuple[int, int, int] | None = None
) -> BlockTable:
    """3 x 3 x 3 groups of 20 to 40 rows, in which wider windows are slower and better."""
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, 0.1, (STAGES, TYPES))
    groups = {}
    for s, t, w in np.ndindex(STAGES, TYPES, WINDOWS):
        if (s, t, w) == without:
            continue
        for r in range(resolutions):
            n = int(rng.integers(20, 40))
            seconds = rng.uniform(1, 2, n) * (1 + w) * (1 + t / 3) * (1 + r) * 1e-4
            loss = 0.6 - 0.08 * w + offset[s, t] + rng.normal(0, 0.05, n) ** 2
            groups[s, t, w, r] = np.column_stack((loss, seconds))
    return block_table(groups, constant_s=[1e-5 * (1 + r) for r in range(resolutions)])


def draws(table: BlockTable, seed: int = 0, networks: int = 4000) -> DrawnNetworks:
    return DrawnNetworks(table, networks=networks, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(("share", "expected"), [(0.08, 1.0), (0.5, 1.0), (1.0, 1.0), (0.008, 10**0.01)])
def test_only_spaces_that_rarely_meet_the_limit_pay(share: float, expected: float) -> None:
    assert float(penalty(share)) == pytest.approx(expected, rel=1e-12)


def test_a_spaces_score_is_the_formula_written_out() -> None:
    rng = np.random.default_rng(3)
    loss, latency_s = rng.uniform(0.5, 2, 3000), rng.uniform(0, 1, 3000)
    for limit in (0.03, 0.5):
        within = sorted(a for a, b in zip(loss, latency_s, strict=True) if b <= limit)
        p = len(within) / 3000 + 1e-5
        expected = 1 / (max(1, (0.08 / p) ** 0.01) * sum(within[:50]) / 50)
        assert qt_score(loss, latency_s, limit) == pytest.approx(expected, rel=1e-12)


def test_few_networks_within_the_limit_count_as_they_are_and_none_is_hopeless() -> None:
    loss, latency_s = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    assert qt_score(loss, latency_s, 2.0) == pytest.approx(1 / 2.0)  # two of three: no penalty
    assert qt_score(loss, latency_s, 0.5) == pytest.approx(1e-5 / (0.08 / 1e-5) ** 0.01)


@given(seed=st.integers(0, 1000), limits=st.lists(st.floats(0.1, 1.0), min_size=2, max_size=6))
def test_more_time_never_scores_less(seed: int, limits: list[float]) -> None:
    rng = np.random.default_rng(seed)
    loss, latency_s = rng.uniform(0.5, 2, 2000), np.linspace(0, 1, 2000)  # at least BEST within 0.1
    assert (latency_s <= 0.1).sum() > BEST
    found = [qt_score(loss, latency_s, limit) for limit in sorted(limits)]
    assert found == sorted(found)


def naive_networks(
    table: BlockTable, space: NDArray[np.int16], seed: int, networks: int
) -> tuple[list[float], list[float]]:
    """As `DrawnNetworks`, one network at a time."""
    rng = np.random.default_rng(seed)
    resolution = np.sort(rng.integers(table.count.shape[3], size=-(-networks // BATCH)))
    uniform = rng.random((STAGES, networks))
    losses, seconds = [], []
    for i in range(networks):
        r, loss = resolution[i // BATCH], 0.0
        latency = table.constant_s[r]
        for s in range(STAGES):
            at = (s, space[s], space[STAGES + s], r)
            row = table.start[at] + int(uniform[s, i] * table.count[at])
            loss, latency = loss + table.loss[row], latency + table.latency_s[row]
        losses.append(loss)
        seconds.append(latency)
    return losses, seconds


def test_networks_are_sums_over_stages_of_one_resolution_a_batch() -> None:
    table = small_table()
    space = random_spaces(table, 1, rng=np.random.default_rng(5))[0]
    loss, latency_s = draws(table, 9, 1200)(space)
    expected = naive_networks(table, space, 9, 1200)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
    np.testing.assert_allclose(latency_s, expected[1], rtol=1e-12)


def test_scores_under_several_limits_add_up() -> None:
    table = small_table()
    spaces = random_spaces(table, 7, rng=np.random.default_rng(0))
    networks = draws(table)
    both = scores_under(networks, (1e-3, 2e-3))(spaces)
    apart = [scores_under(networks, [limit])(spaces) for limit in (1e-3, 2e-3)]
    np.testing.assert_allclose(both, np.sum(apart, axis=0))
    assert len(set(both)) == len(np.unique(spaces, axis=0))


def test_spaces_are_counted_and_enumerated() -> None:
    table = small_table(without=(1, 2, 0))
    found = all_spaces(table)
    assert len(found) == table.size == 9 * 8 * 9
    assert len(np.unique(found, axis=0)) == len(found)
    assert not ((found[:, 1] == 2) & (found[:, STAGES + 1] == 0)).any()


def test_uniform_spaces_have_one_type_and_go_from_narrow_to_wide() -> None:
    found = uniform_spaces(small_table())
    assert (found[:, :STAGES] == found[:, :1]).all()
    for block in range(TYPES):
        windows = found[found[:, 0] == block][:, STAGES:]
        assert windows.tolist() == [[w] * STAGES for w in range(WINDOWS)]


@given(seed=st.integers(0, 10_000))
def test_mutants_differ_in_one_stage_and_exist(seed: int) -> None:
    rng, table = np.random.default_rng(seed), small_table(without=(1, 2, 0))
    everything = {row.tobytes() for row in all_spaces(table)}
    space = random_spaces(table, 1, rng=rng)[0]
    assert space.tobytes() in everything
    of_type, of_window = mutated(table, space, rng=rng)
    assert {of_type.tobytes(), of_window.tobytes()} <= everything
    assert (of_type[:STAGES] != space[:STAGES]).sum() == 1
    assert (of_window[:STAGES] == space[:STAGES]).all()
    assert (of_window[STAGES:] != space[STAGES:]).sum() == 1


def test_evolution_scores_no_space_twice_and_stops_at_its_evaluations() -> None:
    table, scored = small_table(), list[bytes]()
    score = scores_under(draws(table, networks=1000), [1.5e-3])

    def watched(spaces: NDArray[np.int16]) -> NDArray[np.float64]:
        scored.extend(row.tobytes() for row in spaces)
        return score(spaces)

    found = evolve(table, watched, rng=np.random.default_rng(0), population=30, tournament=8, evaluations=101)
    assert len(scored) == len(set(scored)) == len(found.spaces) == 101
    np.testing.assert_allclose(score(found.spaces), found.scores)
    assert score(found.best[None])[0] == found.scores.max()


def test_evolution_is_the_same_for_a_seed_and_needs_no_more_spaces_than_there_are() -> None:
    table = small_table()
    score = scores_under(draws(table, networks=500), [1.5e-3])
    first, again = (
        evolve(table, score, rng=np.random.default_rng(7), population=20, tournament=5, evaluations=5000)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.spaces, again.spaces)
    assert len(first.spaces) <= table.size


def test_evolution_finds_the_best_of_729_spaces_in_under_a_third_of_them() -> None:
    """On made-up tables; the benchmark does the same on measured ones."""
    for seed in range(5):
        table = small_table(seed)
        score = scores_under(draws(table, networks=2000), [1.2e-3])
        best = score(all_spaces(table)).max()
        found = evolve(
            table, score, rng=np.random.default_rng(seed), population=40, tournament=10, evaluations=218
        )
        assert found.scores.max() == best


def test_a_table_without_rows_of_a_stage_is_refused() -> None:
    rows = np.ones((3, 2))
    with pytest.raises(TrilobitError, match="stage 1"):
        block_table({(0, 0, 0, 0): rows, (2, 0, 0, 0): rows})
    with pytest.raises(TrilobitError, match="no numbers"):
        block_table({(0, 0, 0, 0): rows * np.nan})
    with pytest.raises(TrilobitError, match="nothing to design"):
        block_table({})


def test_defaults_are_the_published_ones() -> None:
    assert (space_design.NETWORKS, BATCH, BEST) == (100_000, 500, 50)
    assert (space_design.POPULATION, space_design.TOURNAMENT, space_design.EVALUATIONS) == (500, 125, 5000)

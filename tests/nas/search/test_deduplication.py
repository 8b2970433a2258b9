"""No network is drawn twice, and a small space is drawn whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.search.deduplication import Deduplicator, HashSet, enumerate_space, row_hashes
from supernet.space.space import Choice, Genomes, SearchSpace, unique_rows

SPACE = SearchSpace(
    "small",
    (
        Choice("depth", (1, 2)),
        Choice("width", (8, 16, 24)),
        Choice("kernel", (3, 5), active_if=(("depth", (2,)),)),
    ),
)


def stubborn(k: int) -> Genomes:
    """Always proposes the same network."""
    return np.zeros((k, 3), np.int16)


def test_enumeration_is_complete_canonical_and_distinct() -> None:
    every = enumerate_space(SPACE)
    assert len(every) == SPACE.size == len(unique_rows(every))
    np.testing.assert_array_equal(SPACE.canonical(every), every)


def test_row_hashes_tell_rows_apart() -> None:
    genomes = np.random.default_rng(0).integers(0, 9, (20_000, 40)).astype(np.int16)
    assert len(np.unique(row_hashes(genomes))) == len(genomes)
    np.testing.assert_array_equal(row_hashes(genomes[::2]), row_hashes(genomes)[::2])


@given(st.lists(st.sets(st.integers(0, 60)), max_size=12), st.sets(st.integers(0, 60)))
def test_a_hash_set_is_a_set(added: list[set[int]], asked: set[int]) -> None:
    known, hashes = set[int](), HashSet()
    for several in added:
        hashes.add(np.array(sorted(several - known), np.uint64))
        known |= several
    held = hashes.holds(np.array(sorted(asked), np.uint64))
    assert held.tolist() == [hashed in known for hashed in sorted(asked)]


def test_a_draw_proposes_as_many_as_the_one_before_needed() -> None:
    space, asked = SearchSpace("flat", tuple(Choice(f"c{i}", (0, 1)) for i in range(40))), list[int]()

    def twice(k: int) -> Genomes:
        asked.append(k)
        return np.repeat(space.sample(-(-k // 2), rng=rng), 2, axis=0)

    rng = np.random.default_rng(0)
    deduplicator = Deduplicator(space)
    for _ in range(3):
        assert len(deduplicator.draw(100, twice, rng=rng)) == 100
    assert asked == [100, 105, 210, 210]


def test_draws_are_distinct_until_the_space_is_exhausted() -> None:
    deduplicator, rng = Deduplicator(SPACE), np.random.default_rng(0)
    drawn = np.concatenate([deduplicator.draw(4, stubborn, rng=rng) for _ in range(4)])
    assert len(unique_rows(drawn)) == len(drawn) == SPACE.size
    assert deduplicator.draw(4, stubborn, rng=rng).shape == (0, 3)


def test_initial_genomes_come_first_once_each_and_canonical() -> None:
    initial = np.array([[1, 2, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0]], np.int16)
    deduplicator, rng = Deduplicator(SPACE, initial), np.random.default_rng(0)
    first, second = (deduplicator.draw(2, stubborn, rng=rng) for _ in range(2))
    np.testing.assert_array_equal(first, [[1, 2, 1], [0, 1, 0]])
    np.testing.assert_array_equal(second, [[1, 0, 0], [0, 0, 0]])


def test_what_is_proposed_is_repaired_and_what_is_initial_is_not() -> None:
    def shallow(genomes: Genomes, rng: np.random.Generator) -> Genomes:
        return SPACE.canonical(genomes * np.array([0, 1, 1], np.int16))

    deduplicator = Deduplicator(SPACE, np.array([[1, 2, 1]], np.int16), shallow)
    drawn = deduplicator.draw(9, stubborn, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(drawn[0], [1, 2, 1])
    np.testing.assert_array_equal(np.sort(drawn[1:], axis=0), [[0, 0, 0], [0, 1, 0], [0, 2, 0]])


def test_a_large_space_without_news_ends_early() -> None:
    choices = tuple(Choice(f"c{i}", (0, 1), active_if=(("c0", (1,)),) if i else ()) for i in range(30))
    deduplicator = Deduplicator(SearchSpace("large", choices))
    drawn = deduplicator.draw(5, lambda k: np.zeros((k, 30), np.int16), rng=np.random.default_rng(0))
    assert len(drawn) == 5


@pytest.mark.parametrize("initial", [[[2, 0, 0]], [[0, 0, -1]], [[0, 0]], [0, 0, 0]])
def test_foreign_initial_genomes_are_refused(initial: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="do not belong to space"):
        Deduplicator(SPACE, np.array(initial))

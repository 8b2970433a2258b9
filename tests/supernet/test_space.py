"""The algebra of the search space: properties on random spaces, and a fingerprint that must never change."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from supernet.space.space import Choice, SearchSpace, row_keys, unique_rows

GOLDEN = Path(__file__).parents[1] / "golden" / "space.json"
KINDS = ("architecture", "pruning", "precision")


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Small spaces with conditions on conditions, on several parents, and choices of one option."""
    choices: list[Choice] = []
    for position in range(draw(st.integers(1, 6))):
        conditions = []
        for parent in draw(st.lists(st.sampled_from(choices), max_size=2, unique=True)) if choices else ():
            alive = draw(st.lists(st.sampled_from(parent.options), min_size=1, unique=True))
            conditions.append((parent.name, tuple(alive)))
        options = tuple(range(10, 10 + draw(st.integers(1, 3))))
        choices.append(Choice(f"c{position}", options, draw(st.sampled_from(KINDS)), tuple(conditions)))
    return SearchSpace("random", tuple(choices))


def every_network(space: SearchSpace) -> np.ndarray:
    """All canonical genomes, by brute force over single rows."""
    rows = itertools.product(*(range(len(choice.options)) for choice in space.choices))
    return np.array(sorted({space.candidate(np.array(row)).genes for row in rows}), np.int16)


def random_genomes(space: SearchSpace, seed: int, n: int = 20) -> np.ndarray:
    """Not canonical."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, space.cardinalities, (n, len(space.choices))).astype(np.int16)


seeds = st.integers(0, 2**32 - 1)


@given(spaces(), seeds)
def test_canonical_is_idempotent_and_keeps_the_network(space: SearchSpace, seed: int) -> None:
    genomes = random_genomes(space, seed)
    canonical = space.canonical(genomes)
    assert canonical.dtype == np.int16
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    np.testing.assert_array_equal(space.active(canonical), space.active(genomes))


@given(spaces(), seeds)
def test_dead_genes_follow_the_written_conditions(space: SearchSpace, seed: int) -> None:
    genomes = random_genomes(space, seed)
    for genome, living in zip(genomes, space.active(genomes), strict=True):
        alive: dict[str, bool] = {}
        for choice in space.choices:
            alive[choice.name] = all(
                alive[parent] and space.choices[column].options[genome[column]] in options
                for parent, options in choice.active_if
                for column in [space.columns[parent]]
            )
        assert list(alive.values()) == living.tolist()


@given(spaces(), seeds)
def test_any_split_into_tables_says_the_same(space: SearchSpace, seed: int) -> None:
    genomes = random_genomes(space, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("supernet.space.space.MOST_SKELETONS", 2)
        split = SearchSpace(space.family, space.choices)
        np.testing.assert_array_equal(split.active(genomes), space.active(genomes))
        np.testing.assert_array_equal(split.canonical(genomes), space.canonical(genomes))
        np.testing.assert_array_equal(split.one_hot(genomes), space.one_hot(genomes))


@given(spaces(), seeds)
def test_a_skeleton_is_what_decides_the_life_of_others(space: SearchSpace, seed: int) -> None:
    genomes = random_genomes(space, seed)
    referred = sorted({space.columns[name] for choice in space.choices for name, _ in choice.active_if})
    same = (genomes[:, None, referred] == genomes[None, :, referred]).all(axis=2)
    skeleton = space.skeleton(genomes)
    np.testing.assert_array_equal(skeleton[:, None] == skeleton[None], same)


@given(spaces(), seeds, st.floats(0, 1))
def test_operators_stay_in_the_space_and_are_canonical(space: SearchSpace, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    parents = space.sample(20, rng=rng)
    mutants = space.mutate(parents, rate, rng=rng)
    children = space.crossover(parents, parents[::-1], rng=rng)
    for genomes in (parents, mutants, children):
        assert genomes.shape == parents.shape
        assert genomes.dtype == np.int16
        assert ((genomes >= 0) & (genomes < space.cardinalities)).all()
        np.testing.assert_array_equal(space.canonical(genomes), genomes)


@given(spaces(), seeds, st.floats(0, 1))
def test_mutate_changes_every_row_that_can_change(space: SearchSpace, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    parents = space.sample(20, rng=rng)
    changeable = (space.active(parents) & (space.cardinalities > 1)).any(axis=1)
    changed = (space.mutate(parents, rate, rng=rng) != parents).any(axis=1)
    np.testing.assert_array_equal(changed, changeable)


def test_mutate_takes_one_rate_per_row() -> None:
    space = SearchSpace("flat", tuple(Choice(f"c{i}", (1, 2, 3)) for i in range(50)))
    parents = np.zeros((200, 50), np.int16)
    rates = np.repeat([0.0, 1.0], 100)[:, None]
    changed = (space.mutate(parents, rates, rng=np.random.default_rng(0)) != parents).sum(axis=1)
    assert (changed[:100] == 1).all()
    assert (changed[100:] == 50).all()


@given(spaces(), seeds)
def test_crossover_of_equal_parents_is_the_parent(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents = space.sample(20, rng=rng)
    np.testing.assert_array_equal(space.crossover(parents, parents, rng=rng), parents)


@given(spaces(), seeds)
def test_one_hot_is_equal_exactly_where_networks_are(space: SearchSpace, seed: int) -> None:
    genomes = random_genomes(space, seed)
    encoded = space.one_hot(genomes)
    assert encoded.shape == (20, space.cardinalities.sum())
    np.testing.assert_array_equal(encoded.sum(axis=1), space.active(genomes).sum(axis=1))
    same_code = (encoded[:, None] == encoded[None]).all(axis=2)
    canonical = space.canonical(genomes)
    np.testing.assert_array_equal(same_code, (canonical[:, None] == canonical[None]).all(axis=2))


@given(spaces(), seeds)
def test_one_hot_of_kinds_selects_columns(space: SearchSpace, seed: int) -> None:
    genomes = random_genomes(space, seed)
    kind_of_slot = np.repeat([choice.kind for choice in space.choices], space.cardinalities)
    for kind in KINDS:
        np.testing.assert_array_equal(
            space.one_hot(genomes, [kind]), space.one_hot(genomes)[:, kind_of_slot == kind]
        )


@given(spaces(), seeds)
def test_decode_and_encode_are_inverse(space: SearchSpace, seed: int) -> None:
    for genome in random_genomes(space, seed):
        candidate = space.candidate(genome)
        assert space.encode(space.decode(candidate)) == candidate


@settings(deadline=None)
@given(spaces())
def test_size_and_enumeration_equal_brute_force(space: SearchSpace) -> None:
    assert space.size == len(every_network(space))


@given(spaces(), seeds)
def test_ids_are_equal_exactly_where_networks_are(space: SearchSpace, seed: int) -> None:
    candidates = [space.candidate(genome) for genome in random_genomes(space, seed)]
    assert len({c.id for c in candidates}) == len({c.genes for c in candidates})


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1, max_size=30))
def test_unique_rows_keeps_first_occurrences_in_order(rows: list[list[int]]) -> None:
    genomes = np.array(rows, np.int16)
    expected = [i for i, row in enumerate(rows) if row not in rows[:i]]
    assert unique_rows(genomes).tolist() == expected
    assert len(set(row_keys(genomes).tolist())) == len(expected)


def example_space() -> SearchSpace:
    """One of everything; its fingerprint is golden."""
    return SearchSpace(
        "golden",
        (
            Choice("depth", (1, 2)),
            Choice("width", (8, 16, 24), "pruning"),
            Choice("b1.kernel", (3, 5), active_if=(("depth", (2,)),)),
            Choice("b1.format", ("fp32", "int8"), "precision", (("depth", (2,)), ("b1.kernel", (3,)))),
        ),
    )


def test_fingerprint_and_ids_are_golden() -> None:
    """Files written by earlier versions stay readable: a change here breaks every run folder there is."""
    golden = json.loads(GOLDEN.read_text())
    space = example_space()
    assert space.fingerprint == golden["fingerprint"]
    assert {",".join(map(str, row)): space.candidate(row).id for row in every_network(space)} == golden["ids"]


@pytest.mark.parametrize("column", range(4))
def test_fingerprint_changes_with_any_option(column: int) -> None:
    space = example_space()
    choices = list(space.choices)
    changed = choices[column]
    choices[column] = Choice(changed.name, (*changed.options, 99), changed.kind, changed.active_if)
    assert SearchSpace("golden", tuple(choices)).fingerprint != space.fingerprint


def test_fingerprint_changes_with_family_kind_and_condition() -> None:
    space = example_space()
    *head, last = space.choices
    others = [
        SearchSpace("other", space.choices),
        SearchSpace("golden", (*head, Choice(last.name, last.options, "architecture", last.active_if))),
        SearchSpace("golden", (*head, Choice(last.name, last.options, last.kind, last.active_if[:1]))),
    ]
    assert space.fingerprint not in {other.fingerprint for other in others}


def test_a_condition_on_a_dead_choice_does_not_hold() -> None:
    space = SearchSpace(
        "chain",
        (
            Choice("a", (0, 1)),
            Choice("b", (0, 1), active_if=(("a", (1,)),)),
            Choice("c", (0, 1), active_if=(("b", (0,)),)),
        ),
    )
    # b is dead, so its gene is 0, and yet c is dead too
    np.testing.assert_array_equal(space.active(np.array([[0, 0, 1]], np.int16)), [[True, False, False]])
    assert space.size == 4


@pytest.mark.parametrize(
    "choices",
    [
        (Choice("a", ()),),
        (Choice("a", (1,)), Choice("a", (2,))),
        (Choice("a", (1,), active_if=(("b", (1,)),)), Choice("b", (1,))),
        (Choice("a", (1,)), Choice("b", (1,), active_if=(("a", (2,)),))),
    ],
    ids=["no options", "name twice", "later parent", "unknown option"],
)
def test_broken_spaces_are_refused(choices: tuple[Choice, ...]) -> None:
    with pytest.raises(ValueError, match=r"choice|condition"):
        SearchSpace("broken", choices)


@pytest.mark.parametrize("genome", [[0, 0, 0], [0, 0, 0, 0, 0], [2, 0, 0, 0], [0, -1, 0, 0]])
def test_foreign_genomes_are_refused(genome: list[int]) -> None:
    with pytest.raises(TrilobitError, match="not a genome of space"):
        example_space().candidate(np.array(genome))


def test_encode_names_what_is_wrong() -> None:
    space = example_space()
    decisions = {"depth": 1, "width": 8}
    with pytest.raises(TrilobitError, match="no such choice: heads"):
        space.encode({**decisions, "heads": 4})
    with pytest.raises(TrilobitError, match=r"width: 9 is none of \(8, 16, 24\)"):
        space.encode({**decisions, "width": 9})
    with pytest.raises(TrilobitError, match="undecided: width"):
        space.encode({"depth": 1})

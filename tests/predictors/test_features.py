"""Encodings: lookups that know which genes are dead and which format is first."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hw_profiles.graph.counts import macs, params
from predictors import features
from predictors.table import beside, compile_table, gene_table
from supernet.families.family import load_family
from supernet.space.space import Choice, Genomes, SearchSpace

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
SPACE = SearchSpace(
    "small",
    (
        Choice("depth", (1, 2)),
        Choice("kernel", (3, 5, 7), "architecture", (("depth", (2,)),)),
        Choice("activation", ("relu", "silu")),
        Choice("width", (8, 16), "pruning"),
        Choice("format", ("fp32", "int8", "int4"), "precision"),
    ),
)


def rows(*genomes: list[int]) -> Genomes:
    return np.array(genomes, np.int16)


def test_numbers_become_levels_and_names_indicators() -> None:
    encoded = features.architecture(SPACE)(rows([0, 2, 0, 1, 0], [1, 0, 1, 0, 0], [1, 2, 1, 0, 0]))
    expected = [[0.5, 0, 1, 0, 1], [1, 1 / 3, 0, 1, 0.5], [1, 1, 0, 1, 0.5]]
    assert_array_equal(encoded, np.array(expected, np.float32))


def test_policy_is_zero_in_fp32() -> None:
    encoded = features.policy(SPACE)(rows([0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 2]))
    assert_array_equal(
        encoded, np.array([[0, 0], [1, 0], [0, 1]], np.float32) * np.float32(features.POLICY_SCALE)
    )


@pytest.mark.parametrize("encode", [features.architecture, features.policy, features.every])
def test_equal_networks_have_equal_features(encode: Callable[[SearchSpace], features.Encoding]) -> None:
    space = FAMILY.space()
    raw = np.random.default_rng(0).integers(0, space.cardinalities, (50, len(space.choices))).astype(np.int16)
    assert_array_equal(encode(space)(raw), encode(space)(space.canonical(raw)))


def test_indicators_are_the_one_hot_of_the_space() -> None:
    space = FAMILY.space()
    genomes = space.sample(40, rng=np.random.default_rng(1))
    kinds = features.ARCHITECTURE + features.POLICY
    assert_array_equal(features.encode(space, kinds, features.indicators)(genomes), space.one_hot(genomes))


def test_a_space_without_formats_has_no_policy() -> None:
    space = SearchSpace("plain", SPACE.choices[:-1])
    assert features.policy(space)(rows([0, 0, 0, 0])).shape == (1, 0)


def test_costs_are_standardised_logarithms() -> None:
    space = FAMILY.space()
    table = compile_table(space, FAMILY.terms(), (macs, params))
    genomes = space.sample(200, rng=np.random.default_rng(2))
    encoded = features.log_costs(table, space, genomes)(space, genomes)
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.std(axis=0), features.SCALE, rtol=1e-4)
    np.testing.assert_allclose(np.corrcoef(encoded[:, 0], np.log(table(genomes)[:, 0]))[0, 1], 1, rtol=1e-6)


def test_no_table_and_constant_costs_are_harmless() -> None:
    space = FAMILY.space()
    genomes = space.sample(5, rng=np.random.default_rng(3))
    assert features.log_costs(None, space, genomes)(space, genomes).shape == (5, 0)
    free = compile_table(space, FAMILY.terms(), (lambda layer: 0.0,))
    assert_array_equal(features.log_costs(free, space, genomes)(space, genomes), np.zeros((5, 1), np.float32))


def test_costs_that_a_network_may_be_without_stay_zero() -> None:
    space = FAMILY.space()
    hurt = gene_table(space, {"stem.format": (0.0, 4.0), "head.format": (0.0, 1e-6)})
    table = beside(compile_table(space, FAMILY.terms(), (macs,)), hurt)
    genomes = space.sample(200, rng=np.random.default_rng(2))
    encode = features.log_costs(table, space, genomes)
    assert encode.without.tolist() == [False, True]
    found = encode(space, genomes)[:, 1]
    roots = np.sqrt(hurt(genomes)[:, 0])
    np.testing.assert_allclose(found, roots * features.SCALE / roots.std(), rtol=1e-5)
    assert (found[roots == 0] == 0).all()


def test_costs_that_did_not_vary_say_nothing_of_rows_in_which_they_do() -> None:
    space = FAMILY.space()
    hurt = gene_table(space, {"stem.format": (0.0, 4.0)})
    rows = space.sample(20, rng=np.random.default_rng(2))
    plain = rows.copy()
    plain[:, space.columns["stem.format"]] = 0
    assert_array_equal(features.log_costs(hurt, space, plain)(space, rows), np.zeros((20, 1), np.float32))


def test_changes_of_format_are_as_large_as_the_root_of_their_damage() -> None:
    space = FAMILY.space()
    hurt = gene_table(space, {"stem.format": (0.0, 0.9), "s2.b3.expand.format": (0.0, 0.1)})
    table = beside(compile_table(space, FAMILY.terms(), (macs,)), hurt)
    encoding = features.policy(space, table)
    assert_array_equal(encoding.columns, features.policy(space).columns)
    found = dict(zip((space.choices[c].name for c in encoding.columns), encoding.values[:, 2], strict=True))
    assert found.pop("stem.format") == pytest.approx(np.sqrt(0.9 / 0.5))  # over the mean damage of a policy
    assert found.pop("s2.b3.expand.format") == pytest.approx(np.sqrt(0.1 / 0.5))
    assert set(found.values()) == {np.float32(features.FAINTEST)}


def test_without_damage_all_changes_of_format_are_alike() -> None:
    space = FAMILY.space()
    plain, nothing = compile_table(space, FAMILY.terms(), (macs,)), gene_table(space, {"stem.format": (0, 0)})
    for table in (plain, beside(plain, nothing)):
        assert_array_equal(features.policy(space, table).values, features.policy(space).values)


def test_known_damage_takes_the_place_of_one_hot_formats() -> None:
    space = FAMILY.space()
    table = gene_table(space, {"stem.format": (0.0, 0.9), "s2.b3.expand.format": (0.0, 0.1)})
    genomes = space.sample(40, rng=np.random.default_rng(1))
    whole, formats = features.every(space, table)(genomes), features.policy(space, table)(genomes)
    plain = features.every(space)(genomes)
    assert len(plain[0]) == len(whole[0]) + len(formats[0])  # one feature less per choice of two formats
    scaled = {tuple(column) for column in (formats / np.float32(features.SCALE)).T.round(4).tolist()}
    assert scaled <= {tuple(column) for column in whole.T.round(4).tolist()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits-vit", [1]),  # four blocks
        ("cifar-vit", [2]),  # eight
        ("ofa-mbv3", [1, 1, 1, 1, 1]),
    ],
)
def test_stages_of_many_blocks_are_cut_into_sections(name: str, expected: list[int]) -> None:
    space = load_family(name, in_channels=3, classes=10).space()
    sections = features.sections(space)
    assert [len({s for s in sections if s and s[0] == stage}) for stage in range(len(expected))] == expected
    outside = [choice.name for choice, section in zip(space.choices, sections, strict=True) if not section]
    assert outside == [choice.name for choice in space.choices if choice.stage is None]


@given(st.integers(1, 40))
def test_sections_are_in_order_and_equally_long(blocks: int) -> None:
    choices = (Choice(f"s0.b{b}.heads", (1, 2), role="heads", stage=0, block=b) for b in range(blocks))
    space = SearchSpace("encoder", (Choice("s0.depth", (1, 2), role="depth", stage=0), *choices))
    depth, *of_blocks = (section[1] for section in features.sections(space) if section)
    sizes = np.bincount(of_blocks)
    assert depth == 0
    assert of_blocks == sorted(of_blocks)
    assert np.ptp(sizes) <= 1
    assert sizes.max() < 2 * features.SECTION

"""APQ's 772 features: their order, their zeros, and that they say everything about a network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from benchmarks.apq_encoding import apq_encoding
from hw_profiles.errors import TrilobitError
from supernet.families.family import load_family
from supernet.space.space import Genomes, Option, SearchSpace

FAMILY = load_family("apq-proxyless", in_channels=3, classes=10)
SPACE = FAMILY.space()
ENCODING = apq_encoding(SPACE)
ENTRY_WIDTHS = (16, *(24,) * 4, *(40,) * 4, *(80,) * 4, *(96,) * 4, *(192,) * 4)  # of the 21 positions
BITS = ("pointwise.weight", "pointwise.activation", "depthwise.weight", "depthwise.activation")


def sampled(n: int, space: SearchSpace = SPACE, seed: int = 0) -> Genomes:
    return space.sample(n, rng=np.random.default_rng(seed))


def by_hand(genome: Genomes) -> list[float]:
    """As APQ's code encodes, one feature after the other."""
    decisions = SPACE.decode(SPACE.candidate(genome))
    positions = [(f"s{i // 4}.b{i % 4}", width) for i, width in enumerate(ENTRY_WIDTHS)]
    questions: list[tuple[str, Option]]
    questions = [(f"{name}.kernel", kernel) for name, _ in positions for kernel in (3, 5, 7)]
    for name, c in positions:
        questions += [(f"{name}.expanded", width) for width in range(4 * c, 6 * c + 8, 8)]
    for gene in BITS:
        questions += [(f"{name}.{gene}", f"int{bits}") for name, _ in positions for bits in (4, 6, 8)]
    return [float(decisions.get(name) == option) for name, option in questions]


def test_sizes_are_those_of_the_paper() -> None:
    features = ENCODING(sampled(3))
    assert features.shape == (3, 772)
    assert ENCODING.architecture == 520
    assert sum((6 * c - 4 * c) // 8 + 1 for c in ENTRY_WIDTHS) == 457


def test_features_are_those_that_the_paper_describes() -> None:
    genomes = sampled(40)
    assert_array_equal(ENCODING(genomes), [by_hand(genome) for genome in genomes])


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 40))
def test_decoding_undoes_encoding(seed: int, n: int) -> None:
    genomes = sampled(n, seed=seed)
    features = ENCODING(genomes)
    assert_array_equal(ENCODING.decode(features), genomes)
    assert_array_equal(ENCODING(ENCODING.decode(features)), features)


def test_a_position_that_is_not_used_is_all_zero() -> None:
    genomes = sampled(200)
    used = ENCODING(genomes)[:, :63].reshape(200, 21, 3).sum(axis=2)
    depths = [SPACE.columns[f"s{s}.depth"] for s in range(5)]
    expected = [[i % 4 < (row[i // 4] + 2 if i < 20 else 1) for i in range(21)] for row in genomes[:, depths]]
    assert_array_equal(used, expected)
    bits = ENCODING(genomes)[:, 520:].reshape(200, 4, 21, 3).sum(axis=3)
    quantized = genomes[:, SPACE.columns["policy"]] == 1
    assert_array_equal(
        bits, np.array(expected)[:, None] & quantized[:, None, None] & np.ones((1, 4, 1), bool)
    )


def test_fp32_has_the_features_of_its_architecture_alone() -> None:
    genomes = sampled(50)
    fp32 = genomes.copy()
    fp32[:, [c for c, choice in enumerate(SPACE.choices) if choice.kind == "precision"]] = 0
    features = ENCODING(fp32)
    assert_array_equal(features[:, :520], ENCODING(genomes)[:, :520])
    assert not features[:, 520:].any()
    assert_array_equal(ENCODING.decode(features), fp32)


@pytest.mark.parametrize("formats", [("int8", "int6", "int4"), ("fp32", "int8"), ("fp32", "int4", "int8")])
def test_features_stay_where_they_are_in_a_space_of_other_formats(formats: tuple[str, ...]) -> None:
    space = load_family("apq-proxyless", in_channels=3, classes=10, formats=formats).space()
    encoding, genomes = apq_encoding(space), sampled(30, space)
    features = encoding(genomes)
    assert_array_equal(encoding.decode(features), genomes)
    for row, genome in zip(features, genomes, strict=True):
        same = SPACE.encode(space.decode(space.candidate(genome)))
        assert_array_equal(row, ENCODING(np.array([same.genes], np.int16))[0])


def with_one(position: int, value: float) -> np.ndarray:
    features = ENCODING(np.array([FAMILY.extremes()["largest/int8"].genes], np.int16))
    features[0, position] = value
    return np.concatenate((ENCODING(sampled(2)), features))


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, 1.0),
        (2, 0.0),
        (2, 0.5),
        (62, 0.0),
        (63, 1.0),
        (519, 0.0),
        (520, 1.0),
        (522, 0.0),
        (771, 0.0),
        (8, 0.0),
    ],
)
def test_what_encodes_no_network_is_refused(position: int, value: float) -> None:
    with pytest.raises(TrilobitError, match="row 2 is not the encoding of any network of apq-proxyless"):
        ENCODING.decode(with_one(position, value))


def test_the_wrong_number_of_features_is_refused() -> None:
    with pytest.raises(TrilobitError, match=r"are \(n, 772\), got \(2, 520\)"):
        ENCODING.decode(ENCODING(sampled(2))[:, :520])


def test_other_spaces_have_no_such_features() -> None:
    other = load_family("digits-mbconv", in_channels=1, classes=10).space()
    with pytest.raises(TrilobitError, match="digits-mbconv has no policy; APQ's features are of the space"):
        apq_encoding(other)

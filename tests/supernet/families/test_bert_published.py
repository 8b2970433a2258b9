"""Published subnets of BERT-base: rows to genomes and back, and the multiply-adds that were published."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs
from supernet.families.bert_published import BLOCKS, LAYERS, PublishedRows, from_published, to_published
from supernet.families.encoder import bert_base
from tests.published_data import DataFile

FAMILY = bert_base(in_channels=257, classes=2)
SPACE = FAMILY.space()

counts = st.integers(6, 12)
heads = st.lists(st.sampled_from((6, 8, 10, 12)), min_size=BLOCKS, max_size=BLOCKS)
widths = st.lists(st.sampled_from((1024, 2048, 3072)), min_size=BLOCKS, max_size=BLOCKS)
bits = st.lists(st.sampled_from((8, 32)), min_size=len(LAYERS), max_size=len(LAYERS))


def rows(*subnets: tuple[int, Sequence[int], Sequence[int], Sequence[int]]) -> PublishedRows:
    return PublishedRows(*map(np.array, zip(*subnets, strict=True)))


def same(first: PublishedRows, second: PublishedRows) -> bool:
    return all(np.array_equal(each, vars(second)[name]) for name, each in vars(first).items())


@given(st.lists(st.tuples(counts, heads, widths, bits), min_size=1, max_size=4))
def test_rows_come_back_as_they_were(
    subnets: list[tuple[int, list[int], list[int], list[int]]],
) -> None:
    published = rows(*subnets)
    assert same(to_published(SPACE, from_published(SPACE, published)), published)


@given(st.integers(0, 2**32 - 1))
def test_genomes_come_back_as_they_were(seed: int) -> None:
    genomes = SPACE.sample(5, rng=np.random.default_rng(seed))
    again = from_published(SPACE, to_published(SPACE, genomes))
    np.testing.assert_array_equal(again, genomes)


def test_there_are_74_quantizable_layers_of_a_format_each() -> None:
    assert len(LAYERS) == 74
    assert [f"{layer}.format" for layer in LAYERS] == [c.name for c in SPACE.choices if c.kind == "precision"]
    weighted = {
        name
        for name, precision in FAMILY.policy(FAMILY.extreme("largest", "int8")).items()
        if precision.weight == "int8"
    }
    assert weighted == set(LAYERS)


def test_what_a_subnet_does_not_have_is_kept_until_it_is_made_canonical() -> None:
    full = (12, [8] * 12, [2048] * 12, [8] * 74)
    shallow, other = (6, *full[1:]), (6, [8] * 6 + [12] * 6, [2048] * 12, [8] * 74)
    genomes = from_published(SPACE, rows(shallow, other))
    assert not np.array_equal(*genomes)
    np.testing.assert_array_equal(*SPACE.canonical(genomes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": np.full((1, BLOCKS), 7)}, r"heads of a published subnet is 7; the space has 6, 8, 10, 12"),
        ({"num_layers": np.array([5])}, "depth of a published subnet is 5"),
        ({"q_bits": np.full((1, 74), 4)}, "is 4; the space has fp32, int8"),
        ({"ffn": np.full((1, 11), 1024)}, r"ffn of published subnets is \(n, 12\); got \(1, 11\)"),
    ],
)
def test_other_rows_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    published = rows((6, [8] * 12, [2048] * 12, [8] * 74))
    with pytest.raises(TrilobitError, match=message):
        from_published(SPACE, replace(published, **change))


def test_formats_that_were_not_published_are_refused() -> None:
    family = bert_base(in_channels=257, classes=2, formats=("fp32", "int4"))
    genomes = np.array([family.extreme("largest", "int4").genes], np.int16)
    with pytest.raises(TrilobitError, match=r"s0\.b0\.q: published subnets are in int8 and fp32 only"):
        to_published(family.space(), genomes)


def test_the_published_rows_are_networks_of_the_space_with_the_published_multiply_adds(
    data_file: DataFile,
) -> None:
    data = np.load(data_file("subnets/bert_sst2.npz"))
    published = PublishedRows(data["num_layers"], data["heads"], data["ffn"])
    genomes = from_published(SPACE, published)
    again = to_published(SPACE, genomes)
    assert same(replace(again, q_bits=None), replace(published, q_bits=None))
    # besides products they count one for each number that a norm gives, and one for each place of the mask
    tokens, width = 128, 768
    for genome, depth, total in zip(genomes[:20], published.num_layers, data["macs"], strict=False):
        work = FAMILY.workload(SPACE.candidate(genome))
        assert sum(map(macs, work.layers)) + (2 * int(depth) + 1) * tokens * width + tokens == total

"""LLaMA-NAS's space: what it counts, and its networks by their published description."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from supernet.families.llama_nas import from_published, llama_nas, to_published

FAMILY = llama_nas(formats=("fp32",))


def test_it_has_as_many_networks_as_its_choices_say() -> None:
    assert FAMILY.space().size == 2**24 + 2**28 + 2**32


def test_the_largest_is_llama2_7b() -> None:
    work = FAMILY.workload(FAMILY.extreme("largest"))
    assert sum(map(params, work.layers)) == 6_738_415_616
    assert FAMILY.extreme("largest") == from_published(FAMILY, [11_008] * 32)
    matrices = 6_738_415_616 - 32_000 * 4096 - 4096 * (2 * 32 + 1)
    assert sum(map(macs, work.layers)) == 4096 * matrices + 32 * 2 * 4096**3


def test_half_the_intermediate_size_in_24_blocks_is_the_smallest() -> None:
    work = FAMILY.workload(FAMILY.extreme("smallest"))
    per_block = 4 * 4096**2 + 3 * 4096 * 5504 + 2 * 4096
    assert sum(map(params, work.layers)) == 24 * per_block + 2 * 32_000 * 4096 + 4096


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from((24, 28, 32)).flatmap(
        lambda n: st.lists(st.sampled_from((5504, 11_008)), min_size=n, max_size=n)
    )
)
def test_a_network_is_found_by_its_intermediate_sizes(hidden: list[int]) -> None:
    assert to_published(FAMILY, from_published(FAMILY, hidden)) == tuple(hidden)


@pytest.mark.parametrize("hidden", [[11_008] * 25, [11_008] * 23 + [4096]])
def test_others_are_refused(hidden: list[int]) -> None:
    with pytest.raises(TrilobitError, match="llama-nas has 24 or 28 or 32 blocks of 5504 or 11008"):
        from_published(FAMILY, hidden)

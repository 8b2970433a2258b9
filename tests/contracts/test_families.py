"""Every registered family keeps the promises of `nas.testing.check_family`."""

from collections.abc import Callable
from functools import partial

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import names
from nas.testing.family import FAMILY, FamilyCase, check_extraction
from supernet.families.family import FAMILIES, load_family

# the same descriptions as those of other families, of other sizes
LARGE = {"ofa-mbv3-w1.2", "bert-base", "text-decoder-5m"}
REGISTERED = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE))
    for name in sorted(names("trilobit.spaces", FAMILIES))
]


@pytest.fixture(scope="module", params=REGISTERED)
def case(request: pytest.FixtureRequest) -> FamilyCase:
    return FamilyCase(partial(load_family, request.param))


@pytest.mark.parametrize("promise", FAMILY.promises)
def test_keeps_its_promises(case: FamilyCase, promise: Callable[[FamilyCase], None]) -> None:
    promise(case)


@pytest.mark.slow
def test_two_hundred_extracted_networks_compute_what_the_supernet_computes(case: FamilyCase) -> None:
    check_extraction(case, [case.affordable(candidate) for candidate in case.candidates(200)])


def test_an_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(TrilobitError, match=r"unknown space .resnet.; known: .*cifar-mbconv, cifar-pooled, "):
        load_family("resnet", in_channels=1, classes=10)

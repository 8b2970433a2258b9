"""Networks that stand for a space: of the sizes that are asked for, and the best of some."""

from importlib import import_module

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.export.representatives import NEAR, macs_of, representatives
from supernet.families.family import Family, load_family
from supernet.space.space import Candidate


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("nas.export.representatives"), "DRAWN", 200)


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32", "int8"))


def small(candidate: Candidate) -> float:
    """The score of a network: the fewer channels the better."""
    return -float(sum(candidate.genes))


def test_the_ends_the_sizes_and_the_random_ones(family: Family) -> None:
    sizes = (300_000.0, 450_000.0)
    found = list(representatives(family, random=3, rng=np.random.default_rng(1), sizes=sizes, score=small))
    names = ["largest", "smallest", "about 0.3", "about 0.45", "random 0", "random 1", "random 2"]
    assert [network.name for network in found] == names
    for network, size in zip(found[2:4], sizes, strict=True):
        assert abs(network.macs - size) <= NEAR * size
    assert all(network.macs == macs_of(family, network.candidate) for network in found)
    layers = [layer for n in found for layer in family.workload(n.candidate).layers]
    assert {layer.weight_format for layer in layers} == {"fp32"}


def test_the_random_ones_do_not_depend_on_the_sizes(family: Family) -> None:
    some, more = (
        [*representatives(family, random=2, rng=np.random.default_rng(1), sizes=sizes, score=small)][-2:]
        for sizes in ((), (300_000.0,))
    )
    assert some == more


def test_of_a_size_it_is_the_best_of_some(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    def best(contenders: int) -> float:
        monkeypatch.setattr(import_module("nas.export.representatives"), "CONTENDERS", contenders)
        rng = np.random.default_rng(1)
        *_, last = representatives(family, random=0, rng=rng, sizes=(300_000.0,), score=small)
        return small(last.candidate)

    assert best(8) > best(1)


def test_a_size_that_the_space_does_not_have(family: Family) -> None:
    found = representatives(family, random=0, rng=np.random.default_rng(1), sizes=(9e7,), score=small)
    with pytest.raises(TrilobitError, match="no network of about 90 million multiply-adds among 200 random"):
        list(found)

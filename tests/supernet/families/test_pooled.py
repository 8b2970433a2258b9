"""The dense space at CIFAR size: its bounds, its golden costs, and that all depths begin as one network."""

import numpy as np
import pytest
import torch

from hw_profiles.graph.counts import macs, params
from predictors.table import distinct_layers
from supernet.families.family import load_family
from supernet.families.pooled import cifar_pooled
from supernet.families.staged import StagedFamily


@pytest.fixture(scope="module")
def family() -> StagedFamily:
    return cifar_pooled(in_channels=3, classes=10)


def convolution(read: int, give: int, kernel: int, size: int) -> tuple[int, int]:
    """Multiply-adds and numbers, biases among them."""
    weights = kernel**2 * read * give
    return weights * size**2, weights + give


def total(parts: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def pooled(read: int, middle: int, give: int, size: int) -> list[tuple[int, int]]:
    """A block on a map of `size` pixels, which the pool between its convolutions halves."""
    return [convolution(read, middle, 3, size), convolution(middle, give, 3, -(-size // 2))]


def plain(width: int, size: int) -> list[tuple[int, int]]:
    return [convolution(width, width, 3, size)] * 2


SMALLEST = total(
    [
        convolution(3, 16, 3, 20),
        *pooled(16, 8, 16, 20),
        *pooled(16, 24, 48, 10),
        *pooled(48, 48, 96, 5),
        convolution(96, 256, 1, 3),
        convolution(256, 10, 1, 1),
    ]
)
LARGEST = total(
    [
        convolution(3, 32, 3, 32),
        *pooled(32, 48, 48, 32),
        *pooled(48, 128, 128, 16),
        *plain(128, 8),
        *pooled(128, 192, 192, 8),
        *plain(192, 4),
        convolution(192, 256, 1, 4),
        convolution(256, 10, 1, 1),
    ]
)


@pytest.mark.parametrize(("size", "expected"), [("smallest", SMALLEST), ("largest", LARGEST)])
def test_the_bounds_cost_what_they_do_by_hand(
    family: StagedFamily, size: str, expected: tuple[int, int]
) -> None:
    for fmt in family.formats:
        layers = family.workload(family.extremes()[f"{size}/{fmt}"]).layers
        assert (sum(map(macs, layers)), sum(map(params, layers))) == expected


def test_the_bounds_are_where_they_should_be() -> None:
    assert 1e6 < SMALLEST[0] < 3e6
    assert 40e6 < LARGEST[0] < 100e6
    assert 2 * LARGEST[1] < 12e6  # bytes, as shipped in fp16


def test_it_is_a_space_to_search(family: StagedFamily) -> None:
    assert family.space().size > 10**8
    assert all(width % 16 == 0 for stage in family.stages for width in stage.widths)
    assert (family.resolutions[0], family.resolutions[-1]) == (20, 32)


def test_a_narrow_stem_has_the_first_filters_of_the_wide_one(family: StagedFamily) -> None:
    """Whitening filters are set there and frozen: patterns with both signs, the most frequent first."""
    net, space = family.supernet(rng=np.random.default_rng(0)), family.space()
    assert net.ends[0] == "stem"
    weight = dict(net.named_parameters())["stem.weight"]
    assert weight.shape == (32, 3, 3, 3)
    for size, width in (("smallest", 16), ("largest", 32)):
        subnet = family.extract(net, family.extremes()[f"{size}/fp32"])
        torch.testing.assert_close(subnet.layer("stem").conv.weight, weight[:width])
    assert space.choices[space.columns["stem.width"]].options == (16, 32)


def test_all_depths_begin_as_one_network(family: StagedFamily) -> None:
    net, space = family.supernet(rng=np.random.default_rng(0)).train(), family.space()
    largest = family.extreme("largest")
    shallow = np.array(largest.genes, np.int16)
    shallow[[space.columns[name] for name in space.columns if name.endswith(".depth")]] = 0
    archs = [family.arch(candidate) for candidate in (largest, space.candidate(shallow))]
    assert len(archs[0].workload.layers) > len(archs[1].workload.layers)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(net(x, archs[0]), net(x, archs[1]))


def test_maps_are_halved_by_pools_alone(family: StagedFamily) -> None:
    for fmt in family.formats:
        work = family.workload(family.extreme("largest", fmt))
        halved = [
            (layer.op, layer.outputs[0].shape[2])
            for layer in work.layers
            if layer.op in ("Conv", "MaxPool") and layer.outputs[0].shape[2] != layer.inputs[0].shape[2]
        ]
        assert halved == [("MaxPool", 16), ("MaxPool", 8), ("MaxPool", 4)]


def test_a_profile_of_it_is_no_longer_than_of_others(family: StagedFamily) -> None:
    assert len(distinct_layers(family.space(), family.terms())) < 2_000
    assert load_family("cifar-pooled", in_channels=3, classes=10) == family

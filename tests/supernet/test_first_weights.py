"""A whitened stem gives white channels, and identities pass on what they read."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family, load_family
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.train.config import TrainConfig
from supernet.train.first_weights import (
    pass_on,
    patch_covariance,
    stem_of,
    whiten,
    whitening_filters,
)
from supernet.train.loop import start
from supernet.train.optimiser import dense_filters


@pytest.fixture(scope="module")
def staged() -> Family:
    return load_family("digits-staged", in_channels=1, classes=10)


@pytest.fixture(scope="module")
def digits() -> ImageClassification:
    return load_images("digits", seed=0)


def channels(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(out, positions) of the convolution, only where it reads no padding."""
    return F.conv2d(images, weight).movedim(1, 0).flatten(1)


def test_prefixes_of_a_whitened_stem_are_white(staged: Family, digits: ImageClassification) -> None:
    net = staged.supernet(rng=np.random.default_rng(0))
    whiten(net, digits, 28, seed=0)
    weight = stem_of(net).weight.detach()
    given = channels(digits.inputs(digits.train, 28), weight)
    torch.testing.assert_close(given[1::2], -given[::2])  # both signs in turn
    for width in range(1, len(weight) // 2 + 1):
        covariance = torch.cov(given[0 : 2 * width : 2])
        # a component of little variance has a little less, by EPS
        torch.testing.assert_close(covariance, torch.eye(width).squeeze(), atol=0.04, rtol=0)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_components_come_by_variance_and_are_orthogonal(colours: int, kernel: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = F.avg_pool2d(torch.randn(8, colours, 12, 12, generator=generator), 3, 1) + 5
    covariance = patch_covariance([images[:3], images[3:]], kernel)
    patches = F.unfold(images.double(), kernel).movedim(1, 0).flatten(1)
    torch.testing.assert_close(
        covariance, torch.cov(patches, correction=0).view_as(covariance), atol=1e-9, rtol=1e-6
    )
    filters = whitening_filters(covariance)
    white = filters @ covariance @ filters.T
    torch.testing.assert_close(white, white.diagonal().diag(), atol=1e-6, rtol=0)
    assert (filters.norm(dim=1).diff() >= -1e-9).all()  # 1 / sqrt(variance + EPS)
    assert (white.diagonal() <= 1).all()


def test_a_stem_wider_than_its_components_keeps_the_rest(digits: ImageClassification) -> None:
    family = load_family("digits-staged", in_channels=1, classes=10)
    net: Any = family.supernet(rng=np.random.default_rng(0))
    stem = stem_of(net)
    wide = torch.randn(23, 1, 3, 3)
    stem.weight = torch.nn.Parameter(wide.clone())
    whiten(net, digits, 28, seed=0)
    assert torch.equal(stem.weight[18:], wide[18:])
    assert not torch.equal(stem.weight[17], wide[17])


def shapes(net: torch.nn.Module) -> Iterator[tuple[torch.Tensor, int]]:
    for weight in dense_filters(net):
        if weight.shape[-1] > 1:
            yield weight.detach(), min(weight.shape[:2])


def test_dense_convolutions_pass_on_what_they_read(staged: Family) -> None:
    net = staged.supernet(rng=np.random.default_rng(0))
    random = [weight.clone() for weight, _ in shapes(net)]
    pass_on(net)
    images = torch.randn(2, 64, 6, 6)
    assert random
    for (weight, passed), former in zip(shapes(net), random, strict=True):
        read = images[:, : weight.shape[1]]
        given = F.conv2d(read, weight, padding="same")
        assert torch.equal(given[:, :passed], read[:, :passed])
        assert torch.equal(weight[weight.shape[1] :], former[weight.shape[1] :])


def test_first_weights_follow_the_configuration(staged: Family, digits: ImageClassification) -> None:
    plain = start(staged, digits, TrainConfig(), seed=0).net.state_dict()
    net = start(staged, digits, TrainConfig(whitening=True, initial="identity"), seed=0).net
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, plain[name])}
    filters = {name for name, p in net.named_parameters() if p.ndim == 4 and p.shape[-1] > 1 < p.shape[1]}
    assert changed == {"stem.weight", *filters}
    assert not net.get_parameter("stem.weight").requires_grad


@pytest.mark.parametrize("first_weights", [TrainConfig(whitening=True), TrainConfig(initial="identity")])
def test_weights_of_a_checkpoint_are_not_whitened(first_weights: TrainConfig) -> None:
    with pytest.raises(TrilobitError, match=r"are for a network without train\.init"):
        replace(first_weights, init="weights.pt")

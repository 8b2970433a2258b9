"""A small supernet whose batch norms and weights look trained, in many formats."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supernet.families.family import Family, load_family
from supernet.graph.executor import layered
from supernet.qat.learned import LearnedQuantizers, Structure, find_structure, new_quantizers
from supernet.space.space import Candidate

FORMATS = ("fp32", "int8", "int6", "int4", "int2", "int8/int6", "int4/int4")


def look_trained(net: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms of which some flip signs, and a classifier that no two channels share."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.weight.data[::3] *= -1
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
            module.running_mean.data.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.data.uniform_(0.5, 2.0, generator=generator)
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(std=0.3, generator=generator)
    return net


@pytest.fixture(scope="session")
def digits() -> Family:
    return load_family("digits-mbconv", in_channels=1, classes=10, formats=FORMATS)


@pytest.fixture(scope="session")
def pixels(digits: Family) -> Callable[..., Tensor]:
    """(candidate, n, seed) -> images (n, c, h, w) of its size."""

    def draw(candidate: Candidate, n: int, seed: int = 0) -> Tensor:
        size = digits.resolution(candidate)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n, digits.in_channels, size, size, generator=generator)

    return draw


@pytest.fixture(scope="session")
def drawn(digits: Family) -> list[Candidate]:
    """Networks of random architectures and policies."""
    space = digits.space()
    return [space.candidate(row) for row in space.sample(6, rng=np.random.default_rng(1))]


@pytest.fixture(scope="session")
def supernet(digits: Family) -> nn.Module:
    return look_trained(digits.supernet(rng=np.random.default_rng(0))).eval()


@pytest.fixture(scope="session")
def structure(digits: Family) -> Structure:
    return find_structure(digits)


@pytest.fixture(scope="session")
def quantizers(
    digits: Family, supernet: nn.Module, structure: Structure, pixels: Callable[..., Tensor]
) -> LearnedQuantizers:
    """First scales, of random images."""
    corners = digits.extremes()
    chosen = [corners["largest/int8"], corners["smallest/int8"]]
    samples = [(digits.workload(candidate), pixels(candidate, 32)) for candidate in chosen]
    return new_quantizers(structure, layered(supernet), samples)

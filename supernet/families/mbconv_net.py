"""The elastic network of the inverted-residual family."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from supernet.layers.elastic import ElasticConvNorm


class BlockSizes(Protocol):
    """What a block needs to know."""

    @property
    def kernel(self) -> int: ...
    @property
    def expanded(self) -> int: ...


class Sizes(Protocol):
    """What the network needs to know of an architecture."""

    @property
    def stages(self) -> Sequence[Sequence[BlockSizes]]: ...


class ElasticMBConv(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1, with a residual where shapes allow it (Sandler et al. 2018,
    arXiv:1801.04381).
    """

    def __init__(
        self,
        in_width: int,
        expanded: int,
        width: int,
        kernel: int,
        stride: int,
        *,
        activation: str = "relu",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.expand = ElasticConvNorm(in_width, expanded, 1, activation=activation, eps=eps)
        self.depthwise = ElasticConvNorm(
            expanded, expanded, kernel, stride=stride, depthwise=True, activation=activation, eps=eps
        )
        self.project = ElasticConvNorm(expanded, width, 1, activation="none", eps=eps)
        self.residual = stride == 1 and in_width == width

    def forward(self, x: Tensor, sizes: BlockSizes) -> Tensor:
        """(n, in_width, h, w) -> (n, width, ceil(h / stride), ceil(w / stride))."""
        y = self.expand(x, sizes.expanded, 1)
        y = self.depthwise(y, sizes.expanded, sizes.kernel)
        y = self.project(y, self.project.weight.shape[0], 1)
        out: Tensor = x + y if self.residual else y
        return out

    def extract(self, sizes: BlockSizes) -> Iterator[tuple[str, nn.Module]]:
        """The static layers by part."""
        in_width, width = self.expand.weight.shape[1], self.project.weight.shape[0]
        yield "expand", self.expand.extract(in_width, sizes.expanded, 1)
        yield "depthwise", self.depthwise.extract(sizes.expanded, sizes.expanded, sizes.kernel)
        yield "project", self.project.extract(sizes.expanded, width, 1)


class MBConvNet(nn.Module):
    """Stem, stages of elastic blocks, 1x1 head, pooling, classifier.

    Args:
        stages: per stage and block (input width, largest expanded, width, largest kernel, stride).
        rng: seeds the initial weights: He-normal for convolutions, and each block starts at its shortcut.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        stem_width: int,
        stages: Sequence[Sequence[tuple[int, int, int, int, int]]],
        head_width: int,
        classes: int,
        stem_stride: int = 2,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self.stem = ElasticConvNorm(in_channels, stem_width, 3, stride=stem_stride)
        self.stages = nn.ModuleList(
            nn.ModuleList(ElasticMBConv(*block) for block in stage) for stage in stages
        )
        self.head = ElasticConvNorm(stages[-1][-1][2], head_width, 1)
        self.classifier = nn.Linear(head_width, classes)
        initialise(self, rng=rng)

    def forward(self, x: Tensor, arch: Sizes) -> Tensor:
        """(n, c, h, w) -> logits (n, classes) of the subnet `arch`."""
        x = self.stem(x, self.stem.weight.shape[0], 3)
        for blocks, sizes in zip(self.stages, arch.stages, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block, block_sizes in zip(
                blocks, sizes, strict=False
            ):  # blocks past the chosen depth are skipped
                x = block(x, block_sizes)
        x = self.head(x, self.head.weight.shape[0], 1).mean((2, 3))
        logits: Tensor = self.classifier(x)
        return logits

    def layer(self, name: str) -> nn.Module:
        """The elastic layer that the lowered workload calls `name`."""
        return elastic_layer(self, name)

    def extract(self, arch: Sizes) -> dict[str, nn.Module]:
        """The static layers of a subnet by the layer names of its workload."""
        layers: dict[str, nn.Module] = {
            "stem": self.stem.extract(self.stem.weight.shape[1], self.stem.weight.shape[0], 3)
        }
        for s, (blocks, sizes) in enumerate(zip(self.stages, arch.stages, strict=True)):
            assert isinstance(blocks, nn.ModuleList)
            for b, (block, block_sizes) in enumerate(zip(blocks, sizes, strict=False)):
                assert isinstance(block, ElasticMBConv)
                layers |= {f"s{s}.b{b}.{part}": layer for part, layer in block.extract(block_sizes)}
        layers["head"] = self.head.extract(self.head.weight.shape[1], self.head.weight.shape[0], 1)
        classifier = nn.Linear(self.classifier.in_features, self.classifier.out_features)
        classifier.load_state_dict(self.classifier.state_dict())
        layers["classifier"] = classifier
        return layers


def elastic_layer(net: nn.Module, name: str) -> nn.Module:
    """A layer by its path in a network whose blocks are `stages`: `s0.b1.expand` is `stages.0.1.expand`.

    Raises:
        AttributeError: there is none.
    """
    return net.get_submodule(re.sub(r"^s(\d+)\.b(\d+)\.", r"stages.\1.\2.", name))


def initialise(net: nn.Module, *, rng: np.random.Generator) -> None:
    """First weights of a network of these blocks: He-normal for convolutions, small for linear layers, and
    each block starts at its shortcut.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for module in net.modules():
        if isinstance(module, ElasticConvNorm):
            fan_out = module.weight[0, 0].numel() * (1 if module.depthwise else module.weight.shape[0])
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5, generator=generator)
        if isinstance(module, ElasticMBConv) and module.residual:
            nn.init.zeros_(module.project.norm.weight)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
            nn.init.zeros_(module.bias)

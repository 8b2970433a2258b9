"""The elastic network of once-for-all's ResNet50."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.families.mbconv_net import elastic_layer
from supernet.families.ofa_resnet_layers import (
    STEM,
    Bottleneck,
    ResNetArch,
    Stage,
    Stem,
    StemSizes,
    expanded_channels,
)
from supernet.layers.elastic import ConvNorm, ElasticConvNorm


class ElasticBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, and a shortcut that averages and convolves where shapes change (He et
    al. 2019, arXiv:1812.01187).

    Args:
        in_width, expanded, width: the largest channels of input, middle and output.
        stride: of the 3x3 convolution and of the shortcut.
        first: whether it is the first of a stage, and so has a convolution in its shortcut.
    """

    def __init__(self, in_width: int, expanded: int, width: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1 = ElasticConvNorm(in_width, expanded, 1)
        self.conv2 = ElasticConvNorm(expanded, expanded, 3, stride=stride)
        self.conv3 = ElasticConvNorm(expanded, width, 1, activation="none")
        self.shortcut = ElasticConvNorm(in_width, width, 1, activation="none") if first else None
        self.stride = stride

    def forward(self, x: Tensor, sizes: Bottleneck) -> Tensor:
        """(n, c, h, w) -> (n, sizes.width, ceil(h / stride), ceil(w / stride))."""
        shortcut = x
        if self.shortcut is not None:
            averaged = F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
            shortcut = self.shortcut(averaged, sizes.width, 1)
        y = self.conv1(x, sizes.expanded, 1)
        y = self.conv2(y, sizes.expanded, 3)
        y = self.conv3(y, sizes.width, 1)
        return F.relu(y + shortcut, inplace=True)

    def extract(self, in_width: int, sizes: Bottleneck) -> Iterator[tuple[str, ConvNorm]]:
        """The static layers by part."""
        yield "conv1", self.conv1.extract(in_width, sizes.expanded, 1)
        yield "conv2", self.conv2.extract(sizes.expanded, sizes.expanded, 3)
        yield "conv3", self.conv3.extract(sizes.expanded, sizes.width, 1)
        if self.shortcut is not None:
            yield "shortcut", self.shortcut.extract(in_width, sizes.width, 1)


class OfaResNet(nn.Module):
    """Stem, stages of elastic bottlenecks, global pooling, classifier. All channels are prefixes.

    Args:
        percent: largest expansion of a block.
        rng: seeds the initial weights: He-normal for convolutions, and each block starts at its shortcut
            where that is the identity.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        stem: Stem,
        stages: Sequence[Stage],
        percent: int,
        classes: int,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        inner, width = max(stem.inner), max(stem.widths)
        self.stem = nn.ModuleList(
            [
                ElasticConvNorm(in_channels, inner, 3, stride=2),
                ElasticConvNorm(inner, inner, 3),
                ElasticConvNorm(inner, width, 3),
            ]
        )
        self.stages = nn.ModuleList()
        for stage in stages:
            blocks, largest = nn.ModuleList(), max(stage.widths)
            for b in range(max(stage.depths)):
                expanded, stride = expanded_channels(largest, percent), 1 if b else stage.stride
                blocks.append(ElasticBottleneck(width, expanded, largest, stride=stride, first=b == 0))
                width = largest
            self.stages.append(blocks)
        self.classifier = nn.Linear(width, classes)
        self._initialise(torch.Generator().manual_seed(int(rng.integers(2**62))))

    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, ElasticConvNorm):
                fan_out = module.weight[0, 0].numel() * module.weight.shape[0]
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5, generator=generator)
            if isinstance(module, ElasticBottleneck) and module.shortcut is None:
                nn.init.zeros_(module.conv3.norm.weight)
        nn.init.normal_(self.classifier.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor, arch: ResNetArch) -> Tensor:
        """(n, c, h, w) -> logits (n, classes) of the subnet `arch`."""
        first, middle, last = self.stem
        x = first(x, arch.stem.inner, 3)
        if arch.stem.deep:
            x = x + middle(x, arch.stem.inner, 3)
        x = F.max_pool2d(last(x, arch.stem.width, 3), 3, 2, 1)
        for blocks, sizes in zip(self.stages, arch.stages, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block, block_sizes in zip(blocks, sizes, strict=False):  # the rest are skipped
                x = block(x, block_sizes)
        x = x.mean((2, 3))
        return F.linear(x, self.classifier.weight[:, : x.shape[1]], self.classifier.bias)

    def layer(self, name: str) -> nn.Module:
        """The elastic layer that the lowered workload calls `name`."""
        return self.stem[STEM.index(name)] if name in STEM else elastic_layer(self, name)

    def extract(self, arch: ResNetArch) -> dict[str, nn.Module]:
        """The static layers of a subnet by the layer names of its workload."""
        layers = dict(self._stem_layers(arch.stem))
        width = arch.stem.width
        for s, (blocks, sizes) in enumerate(zip(self.stages, arch.stages, strict=True)):
            assert isinstance(blocks, nn.ModuleList)
            for b, (block, block_sizes) in enumerate(zip(blocks, sizes, strict=False)):
                assert isinstance(block, ElasticBottleneck)
                layers |= {f"s{s}.b{b}.{part}": layer for part, layer in block.extract(width, block_sizes)}
                width = block_sizes.width
        classifier = nn.Linear(width, self.classifier.out_features)
        with torch.no_grad():
            classifier.weight.copy_(self.classifier.weight[:, :width])
            classifier.bias.copy_(self.classifier.bias)
        return {**layers, "classifier": classifier}

    def _stem_layers(self, sizes: StemSizes) -> Iterator[tuple[str, nn.Module]]:
        first, middle, last = self.stem
        assert isinstance(first, ElasticConvNorm)
        assert isinstance(middle, ElasticConvNorm)
        assert isinstance(last, ElasticConvNorm)
        yield STEM[0], first.extract(first.weight.shape[1], sizes.inner, 3)
        if sizes.deep:
            yield STEM[1], middle.extract(sizes.inner, sizes.inner, 3)
        yield STEM[2], last.extract(sizes.inner, sizes.width, 3)

"""The elastic network of staged families."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.families.mbconv_net import elastic_layer, initialise
from supernet.families.staged_layers import Ends, Sizes, Stage, StagedArch, middle_channels
from supernet.layers.activation import ACTIVATE
from supernet.layers.elastic import ConvNorm, ElasticConvNorm


class ElasticBlock(nn.Module):
    """A chain of convolutions, of which all channels are prefixes and all kernels crops; with a sum where it
    is not the first of its stage.

    Args:
        in_width: the most channels that it reads.
        b: its position in the stage.
    """

    def __init__(self, stage: Stage, in_width: int, b: int) -> None:
        super().__init__()
        width = max(stage.widths)
        channels = {"entry": in_width, "middle": middle_channels(width, max(stage.percents)), "out": width}
        self.residual, self._parts, self._ends = b > 0, stage.type.parts, stage.type.ends
        for part in self._parts:
            ends = part is stage.type.last and not self.residual
            layer = ElasticConvNorm(
                channels[part.reads],
                channels[part.gives],
                max(stage.kernels) if part.spatial else 1,
                stride=stage.stride if b == 0 and part.strided else 1,
                depthwise=part.depthwise,
                activation=self._ends if ends else part.activation,
            )
            self.add_module(part.name, layer)

    def layers(self, in_width: int, sizes: Sizes) -> Iterator[tuple[str, ElasticConvNorm, int, int, int]]:
        """Name, layer, input channels, output channels and kernel of every part."""
        channels = {"entry": in_width, "middle": sizes.expanded, "out": sizes.width}
        for part in self._parts:
            layer = self.get_submodule(part.name)
            assert isinstance(layer, ElasticConvNorm)
            kernel = sizes.kernel if part.spatial else 1
            yield part.name, layer, channels[part.reads], channels[part.gives], kernel

    def forward(self, x: Tensor, sizes: Sizes) -> Tensor:
        """(n, c, h, w) -> (n, sizes.width, ceil(h / stride), ceil(w / stride))."""
        y = x
        for _, layer, _, width, kernel in self.layers(x.shape[1], sizes):
            y = layer(y, width, kernel)
        return ACTIVATE[self._ends](x + y) if self.residual else y

    def extract(self, in_width: int, sizes: Sizes) -> Iterator[tuple[str, ConvNorm]]:
        """The static layers by part."""
        for name, layer, read, given, kernel in self.layers(in_width, sizes):
            yield name, layer.extract(read, given, kernel)


class ElasticStage(nn.ModuleList):
    """The blocks of one stage, as many as it can have.

    Args:
        in_width: the most channels that its first block reads.
    """

    def __init__(self, stage: Stage, in_width: int) -> None:
        widths = [in_width, *[max(stage.widths)] * (max(stage.depths) - 1)]
        super().__init__(ElasticBlock(stage, width, b) for b, width in enumerate(widths))

    def forward(self, x: Tensor, blocks: Sequence[Sizes]) -> Tensor:
        """(n, c, h, w) -> (n, width, ceil(h / stride), ceil(w / stride)) of the first blocks."""
        for block, sizes in zip(self, blocks, strict=False):
            x = block(x, sizes)
        return x

    def extract(self, in_width: int, blocks: Sequence[Sizes], name: str) -> Iterator[tuple[str, ConvNorm]]:
        """The static layers of a stage called `name`, by the names of its workload."""
        for b, (block, sizes) in enumerate(zip(self, blocks, strict=False)):
            assert isinstance(block, ElasticBlock)
            for part, layer in block.extract(in_width, sizes):
                yield f"{name}.b{b}.{part}", layer
            in_width = sizes.width


class StagedNet(nn.Module):
    """Stem, stages of elastic blocks, 1x1 head, pooling, classifier.

    Args:
        rng: seeds the initial weights: He-normal for convolutions, and each block with a sum starts at its
            shortcut.
    """

    def __init__(
        self, *, in_channels: int, ends: Ends, stages: Sequence[Stage], rng: np.random.Generator
    ) -> None:
        super().__init__()
        entries = [ends.stem_width, *(max(stage.widths) for stage in stages)]
        self.stem = ElasticConvNorm(in_channels, ends.stem_width, 3, stride=ends.stem_stride)
        self.stages = nn.ModuleList(map(ElasticStage, stages, entries))
        self.head = ElasticConvNorm(entries[-1], ends.head_width, 1)
        self.classifier = nn.Linear(ends.head_width, ends.classes)
        initialise(self, rng=rng)
        start_at_shortcuts(self)

    def forward(self, x: Tensor, arch: StagedArch) -> Tensor:
        """(n, c, h, w) -> logits (n, classes) of the subnet `arch`."""
        x = self.stem(x, self.stem.weight.shape[0], 3)
        for stage, blocks in zip(self.stages, arch.stages, strict=True):
            x = stage(x, blocks)
        x = self.head(x, self.head.weight.shape[0], 1).mean((2, 3))
        return F.linear(x, self.classifier.weight, self.classifier.bias)

    def layer(self, name: str) -> nn.Module:
        """The elastic layer that the lowered workload calls `name`."""
        return elastic_layer(self, name)

    def extract(self, arch: StagedArch) -> dict[str, nn.Module]:
        """The static layers of a subnet by the layer names of its workload."""
        stem, head = self.stem.weight.shape, self.head.weight.shape
        layers: dict[str, nn.Module] = {"stem": self.stem.extract(stem[1], stem[0], 3)}
        width = stem[0]
        for s, (stage, blocks) in enumerate(zip(self.stages, arch.stages, strict=True)):
            assert isinstance(stage, ElasticStage)
            layers |= dict(stage.extract(width, blocks, f"s{s}"))
            width = blocks[-1].width
        layers["head"] = self.head.extract(width, head[0], 1)
        classifier = nn.Linear(self.classifier.in_features, self.classifier.out_features)
        classifier.load_state_dict(self.classifier.state_dict())
        return {**layers, "classifier": classifier}


def start_at_shortcuts(net: nn.Module) -> None:
    """Have every block with a sum give what it reads."""
    for block in net.modules():
        if isinstance(block, ElasticBlock) and block.residual:
            *_, (_, last, *_) = block.layers(0, Sizes(0, 0, 1))
            nn.init.zeros_(last.norm.weight)

"""The elastic network of APQ: a stem and a first block of fixed size, stages of elastic blocks, a head."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from supernet.families.apq_layers import FIRST_KERNEL, HEAD_WIDTH, STEM_WIDTH
from supernet.families.mbconv_net import ElasticMBConv, Sizes, elastic_layer, initialise
from supernet.layers.elastic import ElasticConvNorm

EPS = 1e-3  # of the batch norms, as in the published networks


class ApqNet(nn.Module):
    """ProxylessNAS's stages (Cai et al. 2019, arXiv:1812.00332) with ReLU6; kernels are centre crops.

    Args:
        first_width: channels after the first block.
        stages: per stage and block (input width, largest expanded, width, largest kernel, stride).
        rng: seeds the initial weights, see `initialise`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        first_width: int,
        stages: Sequence[Sequence[tuple[int, int, int, int, int]]],
        classes: int,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()

        def layer(
            inputs: int,
            outputs: int,
            kernel: int = 1,
            *,
            stride: int = 1,
            depthwise: bool = False,
            activation: str = "relu6",
        ) -> ElasticConvNorm:
            sizes = (inputs, outputs, kernel)
            return ElasticConvNorm(*sizes, stride=stride, depthwise=depthwise, activation=activation, eps=EPS)

        self.stem = layer(in_channels, STEM_WIDTH, 3, stride=2)
        self.first_depthwise = layer(STEM_WIDTH, STEM_WIDTH, FIRST_KERNEL, depthwise=True)
        self.first_project = layer(STEM_WIDTH, first_width, activation="none")
        self.stages = nn.ModuleList(
            nn.ModuleList(ElasticMBConv(*block, activation="relu6", eps=EPS) for block in stage)
            for stage in stages
        )
        self.head = layer(stages[-1][-1][2], HEAD_WIDTH)
        self.classifier = nn.Linear(HEAD_WIDTH, classes)
        initialise(self, rng=rng)

    def forward(self, x: Tensor, arch: Sizes) -> Tensor:
        """(n, c, h, w) -> logits (n, classes) of the subnet `arch`."""
        for first in (self.stem, self.first_depthwise, self.first_project):
            x = _whole(first, x)
        for blocks, sizes in zip(self.stages, arch.stages, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block, block_sizes in zip(
                blocks, sizes, strict=False
            ):  # blocks past the chosen depth are skipped
                x = block(x, block_sizes)
        logits: Tensor = self.classifier(_whole(self.head, x).mean((2, 3)))
        return logits

    def layer(self, name: str) -> nn.Module:
        """The elastic layer that the lowered workload calls `name`."""
        return elastic_layer(self, name.replace("first.", "first_"))

    def extract(self, arch: Sizes) -> dict[str, nn.Module]:
        """The static layers of a subnet by the layer names of its workload."""
        layers: dict[str, nn.Module] = {
            "stem": _copy(self.stem),
            "first.depthwise": _copy(self.first_depthwise),
            "first.project": _copy(self.first_project),
        }
        for s, (blocks, sizes) in enumerate(zip(self.stages, arch.stages, strict=True)):
            assert isinstance(blocks, nn.ModuleList)
            for b, (block, block_sizes) in enumerate(zip(blocks, sizes, strict=False)):
                assert isinstance(block, ElasticMBConv)
                layers |= {f"s{s}.b{b}.{part}": layer for part, layer in block.extract(block_sizes)}
        classifier = nn.Linear(self.classifier.in_features, self.classifier.out_features)
        classifier.load_state_dict(self.classifier.state_dict())
        return {**layers, "head": _copy(self.head), "classifier": classifier}


def _whole(layer: ElasticConvNorm, x: Tensor) -> Tensor:
    """A layer at its largest, which is its only size."""
    out: Tensor = layer(x, layer.weight.shape[0], layer.weight.shape[-1])
    return out


def _copy(layer: ElasticConvNorm) -> nn.Module:
    outputs, inputs, kernel, _ = layer.weight.shape
    return layer.extract(outputs if layer.depthwise else inputs, outputs, kernel)

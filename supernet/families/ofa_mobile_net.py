"""The elastic network of once-for-all's mobile spaces (Cai et al. 2020, arXiv:1908.09791)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from supernet.families.mbconv_layers import Block
from supernet.families.mbconv_net import Sizes, elastic_layer
from supernet.families.ofa_mobile_layers import EXPANDS, KERNELS, MobileLayers, MobileStage
from supernet.layers.elastic import ElasticConvNorm
from supernet.layers.kernel_transform import TransformedDepthwise
from supernet.layers.plain import ElasticConv
from supernet.layers.squeeze import ElasticSqueeze


class MobileBlock(nn.Module):
    """Expand 1x1 (unless that adds no channels), depthwise k x k, squeeze-and-excitation, project 1x1; plus
    what it read where it is residual.

    Args:
        stage: what its stage's blocks have in common.
        sizes: (input width, largest expanded channels, stride).
        kernels: which its depthwise convolution can take, ascending.
        residual: whether it adds what it reads.
        eps: of its batch norms.
    """

    def __init__(
        self,
        stage: MobileStage,
        sizes: tuple[int, int, int],
        kernels: tuple[int, ...],
        *,
        residual: bool,
        eps: float,
    ) -> None:
        super().__init__()
        in_width, expanded, stride = sizes
        act = stage.activation
        expand = ElasticConvNorm(in_width, expanded, 1, activation=act, eps=eps)
        self.expand = expand if expanded != in_width else None
        self.depthwise = TransformedDepthwise(expanded, kernels, stride=stride, activation=act, eps=eps)
        self.squeeze = ElasticSqueeze(expanded) if stage.squeeze else None
        self.project = ElasticConvNorm(expanded, stage.width, 1, activation="none", eps=eps)
        self.residual = residual

    @property
    def largest(self) -> Block:
        """Its largest sizes."""
        return Block(self.depthwise.kernels[-1], len(self.depthwise.weight))

    def forward(self, x: Tensor, kernel: int, expanded: int) -> Tensor:
        """(n, in_width, h, w) -> (n, width, ceil(h / stride), ceil(w / stride))."""
        y = x if self.expand is None else self.expand(x, expanded, 1)
        y = self.depthwise(y, expanded, kernel)
        if self.squeeze is not None:
            y = self.squeeze(y)
        y = self.project(y, len(self.project.weight), 1)
        out: Tensor = x + y if self.residual else y
        return out

    def extract(self, kernel: int, expanded: int) -> Iterator[tuple[str, nn.Module]]:
        """The static layers by part."""
        if self.expand is not None:
            yield "expand", self.expand.extract(self.expand.weight.shape[1], expanded, 1)
        yield "depthwise", self.depthwise.extract(expanded, expanded, kernel)
        if self.squeeze is not None:
            yield from self.squeeze.extract(expanded)
        yield "project", self.project.extract(expanded, len(self.project.weight), 1)


class MobileNet(nn.Module):
    """Stem, a first block that is not elastic, stages of elastic blocks, 1x1 head, pooling, in MobileNetV3
    one more convolution, classifier.

    Args:
        layers: its widths.
        eps: of all batch norms.
        rng: seeds the initial weights: He-normal for convolutions, and each residual block starts at its
            shortcut.
    """

    def __init__(self, layers: MobileLayers, *, eps: float, rng: np.random.Generator) -> None:
        super().__init__()
        act, stem = layers.activation, layers.stem_width
        first = MobileStage(layers.first_width, 1, layers.first_activation)
        self.stem = ElasticConvNorm(layers.in_channels, stem, 3, stride=2, activation=act, eps=eps)
        self.first = MobileBlock(first, (stem, stem, 1), (3,), residual=layers.first_residual, eps=eps)
        self.stages = nn.ModuleList(
            nn.ModuleList(_block(layers, s, b, eps) for b in range(max(stage.depths)))
            for s, stage in enumerate(layers.stages)
        )
        self.head = ElasticConvNorm(layers.stages[-1].width, layers.head_width, 1, activation=act, eps=eps)
        mix = ElasticConv(layers.head_width, layers.mix_width, activation=act, bias=False)
        self.mix = mix if layers.mix_width else None
        self.classifier = nn.Linear(layers.mix_width or layers.head_width, layers.classes)
        self._initialise(torch.Generator().manual_seed(int(rng.integers(2**62))))

    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, ElasticConvNorm | ElasticConv):
                depthwise = isinstance(module, ElasticConvNorm) and module.depthwise
                fan_out = module.weight[0, 0].numel() * (1 if depthwise else len(module.weight))
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5, generator=generator)
            if isinstance(module, MobileBlock) and module.residual:
                nn.init.zeros_(module.project.norm.weight)
        nn.init.normal_(self.classifier.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor, arch: Sizes) -> Tensor:
        """(n, c, h, w) -> logits (n, classes) of the subnet `arch`."""
        x = self.stem(x, len(self.stem.weight), 3)
        x = self.first(x, 3, self.first.largest.expanded)
        for _, block, sizes in self._living(arch):
            x = block(x, sizes.kernel, sizes.expanded)
        x = self.head(x, len(self.head.weight), 1).mean((2, 3), keepdim=True)
        if self.mix is not None:
            x = self.mix(x, len(self.mix.weight))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits

    def layer(self, name: str) -> nn.Module:
        """The elastic layer that the lowered workload calls `name`."""
        block, _, part = name.rpartition(".")
        return elastic_layer(self, f"{block}.squeeze.{part}" if part in ("reduce", "excite") else name)

    def extract(self, arch: Sizes) -> dict[str, nn.Module]:
        """The static layers of a subnet by their names in its lowered workload."""
        stem, head = self.stem.weight, self.head.weight
        layers: dict[str, nn.Module] = {"stem": self.stem.extract(stem.shape[1], len(stem), 3)}
        first = self.first.extract(3, self.first.largest.expanded)
        layers |= {f"first.{part}": layer for part, layer in first}
        for name, block, sizes in self._living(arch):
            parts = block.extract(sizes.kernel, sizes.expanded)
            layers |= {f"{name}.{part}": layer for part, layer in parts}
        layers["head"] = self.head.extract(head.shape[1], len(head), 1)
        if self.mix is not None:
            layers["mix"] = self.mix.extract(len(head), len(self.mix.weight))
        classifier = nn.Linear(self.classifier.in_features, self.classifier.out_features)
        classifier.load_state_dict(self.classifier.state_dict())
        layers["classifier"] = classifier
        return layers

    def _living(self, arch: Sizes) -> Iterator[tuple[str, MobileBlock, Block]]:
        """Name, module and sizes of every elastic block that the subnet has."""
        for s, (blocks, chosen) in enumerate(zip(self.stages, arch.stages, strict=True)):
            assert isinstance(blocks, nn.ModuleList)
            for b, (block, sizes) in enumerate(zip(blocks, chosen, strict=False)):  # the others are skipped
                assert isinstance(block, MobileBlock)
                yield f"s{s}.b{b}", block, Block(sizes.kernel, sizes.expanded)


def _block(layers: MobileLayers, s: int, b: int, eps: float) -> MobileBlock:
    sizes = (layers.entry_width(s, b), layers.expanded(s, b, max(EXPANDS)), layers.stride(s, b))
    return MobileBlock(layers.stages[s], sizes, KERNELS, residual=layers.has_residual(s, b), eps=eps)

"""Once-for-all's mobile spaces, as published: MobileNetV3 at two widths and ProxylessNAS (Cai et al. 2020,
arXiv:1908.09791).

Elastic are the input resolution (25 of them, section 4.1: 128 to 224 with a stride of 4), the depth of each
stage, and the kernel and the expansion of each block. A unit of cost is a whole block, since that is what the
published latency tables measured, and it has one number format, as have the convolutions outside the blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.layer import Layer
from supernet.derive.choosing import Choose
from supernet.families.choices import blocks, of_stage, precision, resolution
from supernet.families.family import DEFAULT_FORMATS, Family
from supernet.layers.kernel_transform import TransformedDepthwise
from supernet.layers.plain import ElasticConv
from supernet.space.space import Choice
from supernet.space.varying import elementwise

RESOLUTIONS = tuple(range(128, 225, 4))
KERNELS = (3, 5, 7)
EXPANDS = (3, 4, 6)  # expanded channels, as a multiple of those that the block reads


@dataclass(frozen=True)
class MobileStage:
    """One stage: output width, stride of its first block, and what all of its blocks have in common.

    Attributes:
        width: output channels of every block.
        stride: stride of the first block's depthwise convolution.
        activation: of the expanded channels.
        squeeze: whether blocks have squeeze-and-excitation.
        depths: allowed numbers of blocks, ascending.
    """

    width: int
    stride: int
    activation: str
    squeeze: bool = False
    depths: tuple[int, ...] = (2, 3, 4)


@dataclass(frozen=True)
class MobileLayers:
    """What is not elastic.

    Attributes:
        first_width: output channels of the block after the stem, which is never elastic.
        mix_width: channels of the convolution between pooling and classifier; 0 where there is none.
        activation: of stem, head and mix.
        first_activation: of the first block.
    """

    in_channels: int
    stem_width: int
    first_width: int
    stages: tuple[MobileStage, ...]
    head_width: int
    mix_width: int
    classes: int
    activation: str
    first_activation: str

    @property
    def tail(self) -> tuple[str, ...]:
        """Names of the units after the last block that have a format of their own."""
        return ("head", "mix", "classifier") if self.mix_width else ("head", "classifier")


@elementwise
def expanded_channels(width: int, expand: int) -> int:
    """Return the channels between the pointwise convolutions of a block that reads `width` channels."""
    return divisible(width * expand)


@dataclass(frozen=True)
class MobileFamily(Family):
    """Stem, a first block that is not elastic, stages of elastic blocks, a pointwise convolution, pooling, in
    MobileNetV3 one more convolution, classifier.
    """

    name: str
    layers: MobileLayers
    eps: float
    formats: tuple[str, ...] = DEFAULT_FORMATS
    resolutions: tuple[int, ...] = RESOLUTIONS

    @property
    def in_channels(self) -> int:  # type: ignore[override]
        return self.layers.in_channels

    @property
    def classes(self) -> int:  # type: ignore[override]
        return self.layers.classes

    def choices(self) -> list[Choice]:
        genes = [resolution(self.resolutions), *(precision(unit, self.formats) for unit in ("stem", "first"))]
        for s, stage in enumerate(self.layers.stages):
            genes.append(of_stage(s, "depth", stage.depths))
            for block in blocks(s, stage.depths):
                genes += [block("kernel", KERNELS), block("expand", EXPANDS, "pruning")]
                genes.append(block.precision("", self.formats))
        return [*genes, *(precision(unit, self.formats) for unit in self.layers.tail)]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        layers, formats = self.layers, choose.format
        outer, width = layers.activation, layers.stem_width
        x = net.stem("stem", net.input, width, stride=2, activation=outer, precision=formats("stem"))
        x = net.inverted_residual(
            "first",
            x,
            layers.first_width,
            kernel=3,
            expanded=width,
            activation=layers.first_activation,
            residual=width
            == layers.first_width,  # MobileNetV3's adds where it can, ProxylessNAS's never could
            precision=formats("first"),
        )
        for s in range(len(layers.stages)):
            x = self._append_stage(net, choose, x, s)
        x = net.conv("head", x, layers.head_width, activation=outer, precision=formats("head"))
        x = net.global_pool("pool", x)
        if layers.mix_width:
            x = net.conv("mix", x, layers.mix_width, activation=outer, precision=formats("mix"))
        net.linear("classifier", x, layers.classes, precision=formats("classifier"))

    def _append_stage(self, net: GraphBuilder, choose: Choose, x: int, s: int) -> int:
        stage, width = self.layers.stages[s], net.shape(x)[0]

        def block(block_input: int, b: int) -> int:
            name, read = f"s{s}.b{b}", stage.width if b else width
            return net.inverted_residual(
                name,
                block_input,
                stage.width,
                kernel=choose(f"{name}.kernel"),
                stride=1 if b else stage.stride,
                expanded=expanded_channels(read, choose(f"{name}.expand")),
                activation=stage.activation,
                squeeze=stage.squeeze,
                residual=bool(b) or (stage.stride == 1 and width == stage.width),
                precision=choose.format(name),
            )

        return choose.repeat(choose(f"s{s}.depth"), x, block)

    # -- networks ----------------------------------------------------------------------------------

    def elastic_layer(self, name: str, specs: Sequence[Layer]) -> nn.Module:
        """Smaller depthwise kernels are transformed larger ones; what follows a pooling has no batch norm."""
        first, outputs = specs[0], max(spec.out_channels for spec in specs)
        if first.depthwise:
            kernels = sorted({spec.kernel for spec in specs})
            return TransformedDepthwise(outputs, kernels, eps=self.eps)
        if name == "mix" or name.endswith((".reduce", ".excite")):
            inputs = max(spec.in_shape[0] for spec in specs)
            return ElasticConv(inputs, outputs, activation=first.activation, bias=name != "mix")
        return super().elastic_layer(name, specs)

    def module_path(self, name: str) -> str:
        block, _, part = super().module_path(name).rpartition(".")
        return f"{block}.squeeze.{part}" if part in ("reduce", "excite") else super().module_path(name)


def _mobilenet_v3(
    name: str, width: float, in_channels: int, classes: int, formats: tuple[str, ...]
) -> MobileFamily:
    """MobileNetV3-Large's stages (Howard et al. 2019, arXiv:1905.02244), each up to four blocks deep."""
    stem, first, *widths, head, mix = (
        divisible(base * width) for base in (16, 16, 24, 40, 80, 112, 160, 960, 1280)
    )
    stages = (
        MobileStage(widths[0], 2, "relu"),
        MobileStage(widths[1], 2, "relu", squeeze=True),
        MobileStage(widths[2], 2, "hswish"),
        MobileStage(widths[3], 1, "hswish", squeeze=True),
        MobileStage(widths[4], 2, "hswish", squeeze=True),
    )
    layers = MobileLayers(in_channels, stem, first, stages, head, mix, classes, "hswish", "relu")
    return MobileFamily(name, layers, 1e-5, formats)


def ofa_mbv3(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> MobileFamily:
    """Return `ofa_mbv3_d234_e346_k357_w1.0`."""
    return _mobilenet_v3("ofa-mbv3", 1.0, in_channels, classes, formats)


def ofa_mbv3_wide(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MobileFamily:
    """Return `ofa_mbv3_d234_e346_k357_w1.2`."""
    return _mobilenet_v3("ofa-mbv3-w1.2", 1.2, in_channels, classes, formats)


def ofa_proxyless(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MobileFamily:
    """Return `ofa_proxyless_d234_e346_k357_w1.3`: ProxylessNAS's stages (Cai et al. 2019,
    arXiv:1812.00332), the
    last always one block deep.
    """
    stem, first, *widths, head = (divisible(base * 1.3) for base in (32, 16, 24, 40, 80, 96, 192, 320, 1280))
    strides, depths = (2, 2, 2, 1, 2, 1), ((2, 3, 4),) * 5 + ((1,),)
    stages = tuple(
        MobileStage(width, stride, "relu6", depths=depth)
        for width, stride, depth in zip(widths, strides, depths, strict=True)
    )
    layers = MobileLayers(in_channels, stem, first, stages, head, 0, classes, "relu6", "relu6")
    return MobileFamily("ofa-proxyless", layers, 1e-3, formats)

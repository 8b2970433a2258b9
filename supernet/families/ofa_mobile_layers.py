"""The units of once-for-all's mobile networks by position: the one place that `workload`, the cost terms and
the memory terms take them from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hw_profiles.graph.blocks import block_convolutions, divisible
from hw_profiles.graph.builder import conversion
from hw_profiles.graph.counts import macs as multiply_adds
from hw_profiles.graph.layer import FP32, INPUT, Layer, LayerSpec
from hw_profiles.graph.workload import Workload
from supernet.families.mbconv_layers import Block, stored_and_computed

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
    """What is not elastic, and the units that follow from it.

    `s` and `b` are positions of a stage and of a block in it; `s` past the end is the head. `fmt` is the
    choice of a unit, which sets the formats of its weights and of its activations.

    Attributes:
        first_width: output channels of the block after the stem, which is never elastic.
        activation: of stem, head and mix.
        first_activation: of the first block.
        mix_width: channels of the convolution between pooling and classifier; 0 where there is none.
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

    def entry_width(self, s: int, b: int) -> int:
        """Channels of the tensor that a block reads."""
        if b > 0:
            return self.stages[s].width
        return self.stages[s - 1].width if s > 0 else self.first_width

    def entry_shape(self, resolution: int, s: int, b: int) -> tuple[int, int, int]:
        """(channels, height, width) of the tensor that a block reads."""
        size = -(-resolution // 2)
        for stage in self.stages[: s + (b > 0)]:
            size = -(-size // stage.stride)
        return (self.entry_width(s, b), size, size)

    def expanded(self, s: int, b: int, expand: int) -> int:
        """Channels between the pointwise convolutions of a block."""
        return divisible(self.entry_width(s, b) * expand)

    def stride(self, s: int, b: int) -> int:
        """Of a block's depthwise convolution."""
        return self.stages[s].stride if b == 0 else 1

    # -- single units ------------------------------------------------------------------------------

    def stem(self, resolution: int, fmt: str) -> Layer:
        """The convolution that reads the image."""
        shape = (self.in_channels, resolution, resolution)
        return LayerSpec("stem", shape, self.stem_width, 3, 2, 1, self.activation, *stored_and_computed(fmt))

    def first(self, resolution: int, fmt: str) -> Layer:
        """The block after the stem, which expands nothing."""
        size, width = -(-resolution // 2), self.stem_width
        return LayerSpec(
            "mbconv",
            (width, size, size),
            self.first_width,
            3,
            1,
            1,
            self.first_activation,
            *stored_and_computed(fmt),
            expanded=width,
            residual=self.first_residual,
        )

    @property
    def first_residual(self) -> bool:
        """Whether the first block adds its input: MobileNetV3's does where it can, ProxylessNAS's never
        could.
        """
        return self.stem_width == self.first_width

    def block(self, resolution: int, s: int, b: int, block: Block, fmt: str) -> Layer:
        """An elastic block."""
        stage = self.stages[s]
        return LayerSpec(
            "mbconv",
            self.entry_shape(resolution, s, b),
            stage.width,
            block.kernel,
            self.stride(s, b),
            1,
            stage.activation,
            *stored_and_computed(fmt),
            expanded=block.expanded,
            squeeze=stage.squeeze,
            residual=self.has_residual(s, b),
        )

    def has_residual(self, s: int, b: int) -> bool:
        """Whether a block adds what it reads to what it gives."""
        return self.stride(s, b) == 1 and self.entry_width(s, b) == self.stages[s].width

    def ends(self, resolution: int, formats: Mapping[str, str]) -> dict[str, Layer]:
        """The units after the last block by name: `head`, `pool`, `mix` if there is one, `classifier`.

        Args:
            formats: choice of each of `tail`.
        """
        shape, chosen = self.entry_shape(resolution, len(self.stages), 0), dict(formats)
        weight, activation = stored_and_computed(chosen["head"])
        head = LayerSpec("conv", shape, self.head_width, 1, 1, 1, self.activation, weight, activation)
        pool = LayerSpec("pool", head.out_shape, self.head_width, activation_format=activation)
        units = {"head": head, "pool": pool}
        if self.mix_width:
            units["mix"] = LayerSpec(
                "conv",
                pool.out_shape,
                self.mix_width,
                activation=self.activation,
                weight_format=stored_and_computed(chosen["mix"])[0],
                activation_format=stored_and_computed(chosen["mix"])[1],
            )
        weight, activation = stored_and_computed(chosen["classifier"])
        before = (self.mix_width or self.head_width, 1, 1)
        units["classifier"] = LayerSpec(
            "linear", before, self.classes, weight_format=weight, activation_format=activation
        )
        return units


def chain(units: Mapping[str, Layer], in_format: str = FP32) -> Workload:
    """Units one after the other, with the format conversions between them, as a network that reads a tensor
    of `in_format`.
    """
    names, layers = [], []
    before, found = "input", in_format
    for name, unit in units.items():
        for boundary in conversion(unit.in_shape, found, unit.in_format):
            names.append(f"{before}.{boundary.kind}")
            layers.append(boundary)
        names.append(name)
        layers.append(unit)
        before, found = name, unit.out_format
    inputs = tuple((position - 1,) for position in range(len(layers)))
    assert inputs[0] == (INPUT,)
    return Workload(tuple(names), tuple(layers), inputs, in_format)


def trained_parameters(layer: Layer) -> int:
    """Numbers that training sets in one unit, as publications of these networks count them: weights, two for
    each channel of a batch norm, biases only of squeeze-and-excitation and of the classifier.

    >>> trained_parameters(LayerSpec("conv", (160, 7, 7), 960))
    155520
    """
    if layer.kind == "linear":
        return layer.out_channels * (layer.in_shape[0] + 1)
    if layer.kind == "mbconv":
        return sum(
            _weights(part) + part.out_channels * (1 if name in ("reduce", "excite") else 2)
            for name, part in block_convolutions(layer).items()
        )
    if layer.kind not in ("stem", "conv"):
        return 0
    pooled = layer.in_shape[1:] == (1, 1)  # the mix, a convolution without batch norm and bias
    return _weights(layer) + (0 if pooled else 2 * layer.out_channels)


def _weights(layer: Layer) -> int:
    """Of a convolution: its multiply-adds at one position."""
    _, height, width = layer.out_shape
    return multiply_adds(layer) // (height * width)

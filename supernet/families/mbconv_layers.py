"""The layers of an inverted-residual family by position: the one place that `workload`, the cost terms and
the memory terms take them from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.builder import conversion as boundary_layers
from hw_profiles.graph.builder import conversions as boundaries_of_readers
from hw_profiles.graph.layer import FP32, INPUT, Layer, LayerSpec
from hw_profiles.graph.workload import Workload
from supernet.formats.loading import Precision, parse_precision

PARTS = ("expand", "depthwise", "project")


@dataclass(frozen=True)
class Stage:
    """One stage: its output width, stride of its first block, and what is elastic in it.

    Attributes:
        width: output channels of every block.
        stride: stride of the first block's depthwise convolution.
        depths: allowed numbers of blocks, ascending.
        expanded: allowed expanded channels, ascending, multiples of 8.
        kernels: allowed depthwise kernels, ascending and odd.
    """

    width: int
    stride: int
    depths: tuple[int, ...]
    expanded: tuple[int, ...]
    kernels: tuple[int, ...] = (3, 5, 7)


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual: depthwise kernel and expanded channels."""

    kernel: int
    expanded: int


@dataclass(frozen=True)
class Entry:
    """One layer that the tensor entering a block can come from. Where the stage before can have several
    depths there is one for each: a term over the formats of all of them at once would be too long a table.

    Attributes:
        names: the choices that decide the tensor: the layer's format, and the depth where that matters.
        depth: what the depth must be for the tensor to come from this layer; 0 where it does not matter.
    """

    names: tuple[str, ...]
    depth: int = 0

    def holds(self, before: Sequence[int | str]) -> bool:
        """Whether it does come from there, by the options chosen for `names` after the first."""
        return not self.depth or before[0] == self.depth


@dataclass(frozen=True)
class MBConvLayers:
    """Widths that are not elastic, and the layer specs that follow from them.

    `s` and `b` are positions of a stage and of a block in it; `s` past the end is the head. `fmt` is the
    choice of a layer, which sets the formats of its weights and of its activations. `activation` is what
    follows every convolution but the last of a block.
    """

    in_channels: int
    stem_width: int
    stages: tuple[Stage, ...]
    head_width: int
    classes: int
    stem_stride: int = 2
    activation: str = "relu"

    def entry_width(self, s: int, b: int) -> int:
        """Channels of the tensor that a block reads."""
        if b > 0:
            return self.stages[s].width
        return self.stages[s - 1].width if s > 0 else self.stem_width

    def entry_size(self, resolution: int, s: int, b: int) -> int:
        """Height and width of the tensor that a block reads."""
        size = -(-resolution // self.stem_stride)
        for stage in self.stages[: s + (b > 0)]:
            size = -(-size // stage.stride)
        return size

    def entry_shape(self, resolution: int, s: int, b: int) -> tuple[int, int, int]:
        """(channels, height, width) of the tensor that a block reads."""
        size = self.entry_size(resolution, s, b)
        return (self.entry_width(s, b), size, size)

    def has_residual(self, s: int, b: int) -> bool:
        """Whether a block adds what it reads to what it gives."""
        stage = self.stages[s]
        return b > 0 or (stage.stride == 1 and self.entry_width(s, b) == stage.width)

    # -- single layers -----------------------------------------------------------------------------

    def stem(self, resolution: int, fmt: str) -> Layer:
        """The convolution that reads the image."""
        shape = (self.in_channels, resolution, resolution)
        formats = stored_and_computed(fmt)
        return LayerSpec("stem", shape, self.stem_width, 3, self.stem_stride, 1, self.activation, *formats)

    def part(self, part: str, s: int, b: int, size: int, block: Block, fmt: str) -> Layer:
        """One of `PARTS` of a block; `size` is the height and width that it reads."""
        stage, mid, formats = self.stages[s], block.expanded, stored_and_computed(fmt)
        if part == "expand":
            shape = (self.entry_width(s, b), size, size)
            return LayerSpec("conv", shape, mid, 1, 1, 1, self.activation, *formats)
        if part == "project":
            return LayerSpec("conv", (mid, size, size), stage.width, 1, 1, 1, "none", *formats)
        stride = stage.stride if b == 0 else 1
        return LayerSpec("conv", (mid, size, size), mid, block.kernel, stride, mid, self.activation, *formats)

    def add(self, s: int, size: int, shortcut: str, fmt: str) -> Layer:
        """The residual sum; `shortcut` is the choice of the layer that gave the block's input."""
        (_, found), (_, computed) = stored_and_computed(shortcut), stored_and_computed(fmt)
        width, op = self.stages[s].width, "add" if found == computed else "add_converted"
        return LayerSpec(op, (width, size, size), width, activation_format=computed)

    def head(self, size: int, fmt: str) -> Layer:
        """The last convolution."""
        shape = (self.stages[-1].width, size, size)
        formats = stored_and_computed(fmt)
        return LayerSpec("conv", shape, self.head_width, 1, 1, 1, self.activation, *formats)

    def pool(self, size: int, fmt: str) -> Layer:
        """The global average after the head."""
        width = self.head_width
        return LayerSpec("pool", (width, size, size), width, activation_format=stored_and_computed(fmt)[1])

    def classifier(self, fmt: str) -> Layer:
        """The linear layer at the end."""
        weight, activation = stored_and_computed(fmt)
        return LayerSpec(
            "linear",
            (self.head_width, 1, 1),
            self.classes,
            weight_format=weight,
            activation_format=activation,
        )

    # -- parts of networks: one tensor in, one tensor out ------------------------------------------

    def append_stem(self, net: WorkloadBuilder, fmt: str) -> int:
        """Append what reads the image; gives the tensor after it, as all of these do."""
        return net.add("stem", self.stem(net.shape(INPUT)[1], fmt), INPUT)

    def append_block(
        self, net: WorkloadBuilder, entry: int, s: int, b: int, block: Block, formats: Sequence[str]
    ) -> int:
        """Append a block that reads the tensor `entry`; `formats` are the choices of its `PARTS`."""
        name, x = f"s{s}.b{b}", entry
        for part, fmt in zip(PARTS, formats, strict=True):
            x = net.add(f"{name}.{part}", self.part(part, s, b, net.shape(x)[1], block, fmt), x)
        if self.has_residual(s, b):
            found = net.format(entry)  # of the tensor; as a choice it would be of weights
            total = self.add(s, net.shape(x)[1], str(Precision(found, found)), formats[-1])
            x = net.add(f"{name}.add", total, x, entry)
        return x

    def append_tail(self, net: WorkloadBuilder, x: int, head: str, classifier: str) -> int:
        """Append head, pooling and classifier."""
        size = net.shape(x)[1]
        x = net.add("head", self.head(size, head), x)
        x = net.add("pool", self.pool(size, head), x)
        return net.add("classifier", self.classifier(classifier), x)

    def block_alone(
        self, resolution: int, s: int, b: int, block: Block, formats: Sequence[str], found: str
    ) -> Workload:
        """A block as a network by itself, which reads a tensor that a layer of choice `found` gave."""
        net, x = _reading(self.entry_shape(resolution, s, b), found)
        self.append_block(net, x, s, b, block, formats)
        return _from(net.build(), x + 1)

    def tail_alone(self, resolution: int, head: str, classifier: str, found: str) -> Workload:
        """Head, pooling and classifier as a network by itself, as in `block_alone`."""
        net, x = _reading(self.entry_shape(resolution, len(self.stages), 0), found)
        self.append_tail(net, x, head, classifier)
        return _from(net.build(), x + 1)


def _reading(shape: tuple[int, int, int], found: str) -> tuple[WorkloadBuilder, int]:
    """A builder, and a tensor in it of the format that a layer of choice `found` gives."""
    net, x = WorkloadBuilder(shape), INPUT
    for layer in conversion(shape, FP32, found):
        x = net.add("entry", layer, INPUT)
    return net, x


def _from(work: Workload, first: int) -> Workload:
    """The layers from `first` on; at most one comes before, and its output becomes the network's input."""
    inputs = tuple(tuple(source - first for source in read) for read in work.inputs[first:])
    return Workload(work.names[first:], work.layers[first:], inputs, work.layers[first].in_format)


@cache
def stored_and_computed(fmt: str) -> tuple[str, str]:
    """Formats of a layer's weights and of its activations, by the one choice that sets both."""
    precision = parse_precision(fmt)
    return precision.weight, precision.activation


@cache
def computed_as(fmt: str) -> str:
    """A choice with the same activations, whatever the weights: all that memory depends on."""
    activation = stored_and_computed(fmt)[1]
    return str(Precision(activation, activation))


def conversion(shape: tuple[int, int, int], found: str, wanted: str) -> tuple[Layer, ...]:
    """What stands between two layers of these choices."""
    return boundary_layers(shape, stored_and_computed(found)[1], stored_and_computed(wanted)[1])


def conversions(shape: tuple[int, int, int], found: str, *readers: str) -> tuple[Layer, ...]:
    """What stands between a layer and all that read its output, by their choices."""
    wanted = (stored_and_computed(reader)[1] for reader in readers)
    return boundaries_of_readers(shape, stored_and_computed(found)[1], wanted)

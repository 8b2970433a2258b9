"""APQ's space: ProxylessNAS's networks with elastic depths, kernels and expanded channels, and four
bit-widths at every position (Wang et al. 2020, arXiv:2006.08509).

Of each of the 21 positions, the two pointwise convolutions share a format of weights and one of activations,
and the depthwise convolution has two of its own. Stem, first block, head and classifier are 8-bit. A tensor
has the activation format of the layer that gives it, and is converted where the next one reads another.

Besides the published, integer networks the space holds every architecture in fp32: that is what the
supernet is trained in, what percentages refer to, and what the accuracy predictor transfers from. One choice,
`policy`, switches between the two, and the formats of the positions are alive in an integer network only; so
no network mixes fp32 layers with integer ones, as none of the published does.
"""

from dataclasses import dataclass
from functools import cached_property

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import DEPTHWISE, GraphBuilder
from hw_profiles.graph.layer import FP32
from supernet.derive.choosing import Choose
from supernet.families.choices import blocks, of_stage
from supernet.families.family import Family
from supernet.families.mbconv import Stage, append_stages
from supernet.families.parts import append_stem, append_tail
from supernet.formats.loading import Precision
from supernet.space.space import Choice
from supernet.space.varying import elementwise

INTEGER_FORMATS = ("int8", "int6", "int4")  # of weights and of activations, 4, 6 and 8 bits in APQ
DEFAULT_FORMATS = (FP32, *INTEGER_FORMATS)
GENES = ("pointwise.weight", "pointwise.activation", "depthwise.weight", "depthwise.activation")
INTEGER = "integer"  # what the choice `policy` is in a quantized network; else `fp32`
RESOLUTION = 224
STEM_WIDTH, FIRST_WIDTH, FIRST_KERNEL, HEAD_WIDTH = 32, 16, 3, 1280
ENDS = ("stem", "first.depthwise", "first.project", "head", "classifier")  # layers that never change
FIXED_FORMAT = "int8"  # of the ends in a quantized network
LEAST, MOST, STEP = 4, 6, 8  # expanded channels: times the position's input channels, from, to; in steps of
STAGES = tuple(
    Stage(width, stride, depths, expanded=())
    for width, stride, depths in (
        *((24, 2, (2, 3, 4)), (40, 2, (2, 3, 4)), (80, 2, (2, 3, 4))),
        *((96, 1, (2, 3, 4)), (192, 2, (2, 3, 4)), (320, 1, (1,))),
    )
)


def expanded_widths(entry_width: int) -> tuple[int, ...]:
    """Return the allowed expanded channels of a position that reads a tensor of `entry_width` channels.

    >>> expanded_widths(16)
    (64, 72, 80, 88, 96)
    """
    return tuple(range(LEAST * entry_width, MOST * entry_width + 1, STEP))


@elementwise
def _precision(policy: str, weight: str, activation: str) -> Precision:
    return Precision(weight, activation) if policy == INTEGER else Precision()


@dataclass(frozen=True)
class ApqFamily(Family):
    """Stem, a first block that never changes, stages of inverted residuals with ReLU6, head.

    Attributes:
        formats: what networks can be in: `fp32` throughout, and the integer formats of weights and of
            activations. Without fp32 the space is the published one and nothing else.
    """

    name: str
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    eps: float = 1e-3  # as in the published networks

    def __post_init__(self) -> None:
        unknown = [fmt for fmt in self.formats if fmt not in DEFAULT_FORMATS]
        if unknown or set(self.formats) <= {FP32}:
            refused = ", ".join(unknown or self.formats)
            raise TrilobitError(
                f"{self.name} cannot be searched in {refused}: it chooses the formats of weights and of "
                f"activations, of {', '.join(INTEGER_FORMATS)} at least one; fp32 is of whole networks"
            )

    @cached_property
    def _integers(self) -> tuple[str, ...]:
        return tuple(fmt for fmt in self.formats if fmt != FP32)

    def choices(self) -> list[Choice]:
        policies = (FP32, INTEGER) if FP32 in self.formats else (INTEGER,)
        genes, width = [Choice("policy", policies, "precision", role="policy")], FIRST_WIDTH
        for s, stage in enumerate(STAGES):
            if len(stage.depths) > 1:
                genes.append(of_stage(s, "depth", stage.depths))
            for block in blocks(s, stage.depths):
                widths, quantized = expanded_widths(width), (("policy", (INTEGER,)),)
                genes += [block("kernel", stage.kernels), block("expanded", widths, "pruning")]
                for layer, role in (gene.split(".") for gene in GENES):
                    genes.append(block(role, self._integers, "precision", layer=layer, when=quantized))
                width = stage.width
        return genes

    def uniform(self, choice: Choice, fmt: str) -> int:
        option = (INTEGER if fmt != FP32 else FP32) if choice.role == "policy" else fmt
        return choice.options.index(option) if option in choice.options else 0

    def input_size(self, choose: Choose) -> int:
        return RESOLUTION

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        policy = choose("policy")
        fixed = _precision(policy, FIXED_FORMAT, FIXED_FORMAT)

        def formats(block: str, part: str) -> Precision:
            name = f"{block}.depthwise" if part == "depthwise" else f"{block}.pointwise"
            return _precision(policy, choose(f"{name}.weight"), choose(f"{name}.activation"))

        def ends(layer: str) -> Precision:
            return fixed

        x = append_stem(net, STEM_WIDTH, 2, ends, activation="relu6")
        sizes = {"kernel": FIRST_KERNEL, "groups": DEPTHWISE}
        x = net.conv("first.depthwise", x, STEM_WIDTH, **sizes, activation="relu6", precision=fixed)
        x = net.conv("first.project", x, FIRST_WIDTH, precision=fixed)
        x = append_stages(net, choose, x, STAGES, formats, activation="relu6")
        append_tail(net, x, HEAD_WIDTH, self.classes, ends, activation="relu6")

    def module_path(self, name: str) -> str:
        return super().module_path(name).replace("first.", "first_")


def apq_proxyless(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> ApqFamily:
    """Return the published space: 21 positions in six stages at 224 px, 4, 6 or 8 bits."""
    return ApqFamily("apq-proxyless", in_channels, classes, formats)

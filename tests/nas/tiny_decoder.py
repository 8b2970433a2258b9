"""A tiny family of decoders: what tests of scenarios are made with."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hw_profiles.graph.builder import GraphBuilder, Precision
from supernet.derive.choosing import Choose
from supernet.derive.inputs import NetworkInput, TokenInput
from supernet.families.choices import blocks, length, of_stage, precision
from supernet.families.family import DEFAULT_FORMATS, Answers, Family
from supernet.space.space import Choice
from supernet.space.varying import elementwise

HEAD_WIDTH = 8


@dataclass(frozen=True)
class TinyDecoder(Family):
    """Embedding, blocks of causal attention with a cache in some format, and a head."""

    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    name: str = "tiny-decoder"
    lengths: tuple[int, ...] = (8, 16)
    widths: tuple[int, ...] = (16, 24)
    depths: tuple[int, ...] = (1, 2, 3)
    heads: tuple[int, ...] = (2, 4)
    groups: tuple[int, ...] = (1, 2)
    caches: tuple[str, ...] = ("fp32", "fp16", "int8")
    positions: int = 64
    prompt: int = 0
    past: int = 0

    answers: ClassVar[Answers] = "next"

    @property
    def input(self) -> NetworkInput:
        return TokenInput(self.in_channels)

    def uniform(self, choice: Choice, fmt: str) -> int:
        return choice.options.index(fmt) if fmt in choice.options else 0

    def choices(self) -> list[Choice]:
        genes = [length(self.lengths), precision("cache", self.caches)]
        genes += [of_stage(0, "width", self.widths, "pruning"), of_stage(0, "depth", self.depths)]
        for block in blocks(0, self.depths):
            genes += [block("heads", self.heads, "pruning"), block("groups", self.groups, "pruning")]
            genes.append(block.precision("mlp", self.formats))
        return [*genes, precision("head", self.formats)]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        width, cache = choose("s0.width"), choose.format("cache")
        x = net.embedding("embedding", net.input, self.in_channels, width)

        def block(x: int, b: int) -> int:
            name = f"s0.b{b}"
            heads, groups = choose(f"{name}.heads"), choose(f"{name}.groups")
            y = net.op(f"{name}.norm", "RMSNormalization", x, weight=net.dims(x)[-1:])
            parts: list[Any] = [
                net.matmul(f"{name}.{part}", y, count * HEAD_WIDTH, bias=False)
                for part, count in (("q", heads), ("k", groups), ("v", groups))
            ]
            for i, count in enumerate((heads, groups)):
                part = f"{name}.{'qk'[i]}.turned"
                parts[i] = net.op(part, "RotaryEmbedding", parts[i], num_heads=count, length=self.positions)
            counts = {"q_num_heads": heads, "kv_num_heads": groups, "is_causal": 1}
            y = net.op(f"{name}.attention", "Attention", *parts, **counts, cache=activation_of(cache))
            y = net.matmul(f"{name}.proj", y, width, bias=False)
            x = net.add(f"{name}.add", y, x, precision="fp32")
            y = net.curve(f"{name}.silu", x, "Swish")
            y = net.matmul(f"{name}.mlp", y, width, bias=False, precision=choose.format(f"{name}.mlp"))
            return net.add(f"{name}.add2", y, x, precision="fp32")

        x = choose.repeat(choose("s0.depth"), x, block)
        net.matmul("head", x, self.classes, bias=False, precision=choose.format("head"))


@elementwise
def activation_of(precision: Precision) -> str:
    return precision.activation


def tiny_decoder(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> TinyDecoder:
    return TinyDecoder(in_channels, classes, formats)

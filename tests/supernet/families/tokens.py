"""A tiny family of networks that read tokens: what tests of text are made with."""

from dataclasses import dataclass
from typing import Any

from hw_profiles.graph.builder import GraphBuilder
from supernet.derive.choosing import Choose
from supernet.derive.inputs import NetworkInput, TokenInput
from supernet.families.choices import blocks, length, of_stage, precision
from supernet.families.family import DEFAULT_FORMATS, Answers, Family
from supernet.families.vit import MATRICES, append_attention, append_feed_forward
from supernet.space.space import Choice

HEAD_WIDTH = 8


@dataclass(frozen=True)
class TinyText(Family):
    """Embedding, positions, blocks of attention; an answer for each token, or one for the first.

    Attributes:
        says: what it answers.
    """

    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    says: Answers = "next"
    name: str = "tiny-text"
    lengths: tuple[int, ...] = (8, 12, 16)
    widths: tuple[int, ...] = (16, 24)
    depths: tuple[int, ...] = (1, 2)
    heads: tuple[int, ...] = (1, 2)

    @property
    def input(self) -> NetworkInput:
        return TokenInput(self.in_channels)

    @property
    def answers(self) -> Answers:
        return self.says

    def choices(self) -> list[Choice]:
        genes = [length(self.lengths), precision("embedding", self.formats)]
        genes += [of_stage(0, "width", self.widths, "pruning"), of_stage(0, "depth", self.depths)]
        for block in blocks(0, self.depths):
            genes.append(block("heads", self.heads, "pruning"))
            genes += [block.precision(matrix, self.formats) for matrix in MATRICES]
        return [*genes, precision("classifier", self.formats)]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        width = choose("s0.width")
        x = net.embedding(
            "embedding", net.input, self.in_channels, width, precision=choose.format("embedding")
        )
        x = net.table("positions", x)

        def block(x: int, b: int) -> int:
            name = f"s0.b{b}"

            def formats(matrix: str) -> Any:
                return choose.format(f"{name}.{matrix}")

            y = net.layer_norm(f"{name}.norm1", x)
            y = append_attention(net, name, y, choose(f"{name}.heads"), HEAD_WIDTH, width, formats)
            x = net.add(f"{name}.add1", y, x)
            y = net.layer_norm(f"{name}.norm2", x)
            return net.add(f"{name}.add2", append_feed_forward(net, name, y, 2 * width, width, formats), x)

        x = net.layer_norm("norm", choose.repeat(choose("s0.depth"), x, block))
        if self.answers == "class":
            x = net.op("first", "Gather", x, axis=1, indices=0)
        net.matmul("classifier", x, self.classes, precision=choose.format("classifier"))


def tiny_text(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> TinyText:
    return TinyText(in_channels, classes, formats)


def tiny_texts(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> TinyText:
    return TinyText(in_channels, classes, formats, says="class", name="tiny-texts")

"""Transformer encoders that read text (BERT; Devlin et al. 2019, arXiv:1810.04805): the norms behind what
they are for.

Elastic are the number of tokens, the embedding width, the depth, the heads and the feed-forward width of each
block, and the number format of every matrix but the embeddings. Smaller networks have the first of
everything: the first tokens and their positions, the first blocks, the first heads of each, the first
features. All heads have one width, so that head h is the same in every network.

What is multiplied in integers is given as real numbers: norms, softmax and GELU compute in fp32, as engines'
kernels do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hw_profiles.graph.builder import GraphBuilder, Precision
from supernet.data.tokens import BYTES, PADDING
from supernet.derive.choosing import Choose
from supernet.derive.inputs import TokenInput
from supernet.families.choices import blocks, length, of_stage, precision
from supernet.families.family import DEFAULT_FORMATS, Answers, Family
from supernet.families.parts import Formats, append_feed_forward
from supernet.space.space import Choice
from supernet.space.varying import elementwise

MATRICES = ("q", "k", "v", "proj", "fc1", "fc2")  # of a block
EPSILON = 1e-12  # of BERT's norms

EMBEDDED: Mapping[str, Any] = {  # sizes that two cores train in minutes
    "lengths": (64, 96, 128),
    "widths": (48, 64, 96),
    "depths": (2, 3, 4),
    "heads": (1, 2, 3),
    "head_width": 32,
    "hidden": (96, 192, 384),
}


@dataclass(frozen=True)
class EncoderFamily(Family):
    """Embeddings of tokens and positions, a norm, blocks of attention and a feed-forward part with a norm
    behind each, and a classifier of the whole text: of what a matrix and a tanh make of its first token.

    Attributes:
        lengths: how many tokens a network can read.
        widths: of the embedding.
        heads, head_width: how many a block can have, and the features of each.
        hidden: features in the middle of a feed-forward part.
        in_channels: different tokens.
        token_type: whether the embedding of the first of BERT's types, which a text by itself has, is added.
    """

    name: str
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    head_width: int
    hidden: tuple[int, ...]
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    token_type: bool = False

    @property
    def input(self) -> TokenInput:
        return TokenInput(self.in_channels)

    @property
    def padded(self) -> bool:
        """Whether texts may end before their last token: a vocabulary of bytes and `PADDING` says so."""
        return self.in_channels == BYTES + 1

    def choices(self) -> list[Choice]:
        genes = [length(self.lengths), of_stage(0, "width", self.widths, "pruning")]
        genes.append(of_stage(0, "depth", self.depths))
        for block in blocks(0, self.depths):
            genes += [block("heads", self.heads, "pruning"), block("hidden", self.hidden, "pruning")]
            genes += [block.precision(matrix, self.formats) for matrix in MATRICES]
        return [*genes, *(precision(matrix, self.formats) for matrix in self.head())]

    def head(self) -> tuple[str, ...]:
        """Return the matrices behind the last block."""
        return ("pooler", "classifier")

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        width = choose("s0.width")
        mask = self._mask(net)
        x = self._embedded(net, width)

        def block(x: int, b: int) -> int:
            name = f"s0.b{b}"

            def formats(matrix: str) -> Precision:
                return choose.format(f"{name}.{matrix}")

            heads, hidden = choose(f"{name}.heads"), choose(f"{name}.hidden")
            y = append_attention(net, name, x, mask, heads, self.head_width, width, formats)
            x = net.layer_norm(f"{name}.norm1", net.add(f"{name}.add1", y, x), epsilon=EPSILON)
            y = append_feed_forward(net, name, x, hidden, width, formats)
            return net.layer_norm(f"{name}.norm2", net.add(f"{name}.add2", y, x), epsilon=EPSILON)

        self._classified(net, choose.repeat(choose("s0.depth"), x, block), width, choose.format)

    def _classified(self, net: GraphBuilder, x: int, width: int, formats: Formats) -> None:
        """Append what says which class a text has, by its first token: a matrix, a tanh and a classifier."""
        x = net.reshape("map", net.op("first", "Gather", x, axis=1, indices=0), 0, -1, 1, 1)
        x = net.curve("pooled", net.linear("pooler", x, width, precision=formats("pooler")), "Tanh")
        x = net.reshape("pooled.map", x, 0, -1, 1, 1)
        net.linear("classifier", x, self.classes, precision=formats("classifier"))

    def _embedded(self, net: GraphBuilder, width: int) -> int:
        """Append what is known of a token by itself and its place, and the norm behind."""
        x = net.embedding("embedding", net.input, self.in_channels, width)
        x = net.table("positions", x)
        if self.token_type:
            x = net.op("token_type", "Add", x, weight=row(width))
        return net.layer_norm("norm", x, epsilon=EPSILON)

    def _mask(self, net: GraphBuilder) -> tuple[int, ...]:
        """Append which tokens are text (batch, 1, 1, tokens), where not all of them are."""
        if not self.padded:
            return ()
        return (net.reshape("mask", net.op("text", "Less", net.input, value=PADDING), 0, 1, 1, -1),)


@dataclass(frozen=True)
class TokenEncoderFamily(EncoderFamily):
    """The same with a classifier of every token."""

    answers: ClassVar[Answers] = "token"

    def head(self) -> tuple[str, ...]:
        return ("classifier",)

    def _classified(self, net: GraphBuilder, x: int, width: int, formats: Formats) -> None:
        net.matmul("classifier", x, self.classes, precision=formats("classifier"))


def append_attention(
    net: GraphBuilder,
    name: str,
    x: int,
    mask: tuple[int, ...],
    heads: int,
    head_width: int,
    width: int,
    formats: Formats,
) -> int:
    """Append attention of all tokens (n, t, c) to those that a mask leaves (Vaswani et al. 2017,
    arXiv:1706.03762), and the matrix that gives `width` features.

    Keys have no bias: it would add the same to all scores of a query.
    """
    queries, keys, values = (
        net.matmul(f"{name}.{part}", x, heads * head_width, bias=part != "k", precision=formats(part))
        for part in ("q", "k", "v")
    )
    y = net.op(
        f"{name}.attention", "Attention", queries, keys, values, *mask, q_num_heads=heads, kv_num_heads=heads
    )
    return net.matmul(f"{name}.proj", y, width, precision=formats("proj"))


@elementwise
def row(width: int) -> tuple[int, ...]:
    """Return the shape of one row of a table."""
    return (width,)


def token_encoder(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> TokenEncoderFamily:
    """Return small encoders that say of every token which class it has."""
    return TokenEncoderFamily(
        "token-encoder", in_channels=in_channels, classes=classes, formats=formats, **EMBEDDED
    )


def text_encoder(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> EncoderFamily:
    """Return small encoders that say which class a text has."""
    return EncoderFamily(
        "text-encoder", in_channels=in_channels, classes=classes, formats=formats, **EMBEDDED
    )


def bert_base(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> EncoderFamily:
    """Return the space of SimQ-NAS on BERT-base (Sridhar et al. 2023, arXiv:2312.13301): 6 to 12 blocks of
    6 to 12 heads and a third, two or all of the feed-forward features, and 74 matrices that have a format.
    """
    return EncoderFamily(
        name="bert-base",
        lengths=(128,),
        widths=(768,),
        depths=tuple(range(6, 13)),
        heads=(6, 8, 10, 12),
        head_width=64,
        hidden=(1024, 2048, 3072),
        in_channels=in_channels,
        classes=classes,
        formats=formats,
        token_type=True,
    )

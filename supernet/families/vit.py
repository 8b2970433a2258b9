"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929), the norms before what they are for.

Elastic are the input resolution, the embedding width, the depth, the heads and the feed-forward width of
each block, and the number format of every matrix, the patch embedding and the classifier. Smaller networks
have the first of everything: the first blocks, the first heads of each, the first features of the embedding,
and the positions at the upper left. All heads have one width, so that head h is the same in every network.

What is multiplied in integers is given as real numbers: norms, softmax and GELU compute in fp32, as engines'
kernels do.
"""

from dataclasses import dataclass

from hw_profiles.graph.builder import GraphBuilder, Precision
from supernet.derive.choosing import Choose
from supernet.families.choices import blocks, of_stage, precision, resolution
from supernet.families.family import DEFAULT_FORMATS, Family
from supernet.families.parts import Formats, append_feed_forward, append_stem
from supernet.space.space import Choice

MATRICES = ("qkv", "proj", "fc1", "fc2")
STEM_STRIDE = 2


@dataclass(frozen=True)
class ViTFamily(Family):
    """Patch embedding, positions, blocks of attention and a feed-forward part, the mean over tokens,
    classifier.

    Attributes:
        patch: side of a patch in pixels.
        widths: of the embedding.
        heads, head_width: how many a block can have, and the features of each.
        percents: features in the middle of a feed-forward part, % of the embedding width.
        stem_width: channels of a 3x3 convolution that halves the image first (Xiao et al. 2021,
            arXiv:2106.14881); 0 for none.
    """

    name: str
    resolutions: tuple[int, ...]
    patch: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    head_width: int
    percents: tuple[int, ...]
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    stem_width: int = 0

    def choices(self) -> list[Choice]:
        genes = [resolution(self.resolutions)]
        genes += [precision("stem", self.formats)] if self.stem_width else []
        genes += [precision("patch", self.formats), of_stage(0, "width", self.widths, "pruning")]
        genes.append(of_stage(0, "depth", self.depths))
        for block in blocks(0, self.depths):
            genes += [block("heads", self.heads, "pruning"), block("percent", self.percents, "pruning")]
            genes += [block.precision(matrix, self.formats) for matrix in MATRICES]
        return [*genes, precision("classifier", self.formats)]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        x, patch, width = net.input, self.patch, choose("s0.width")
        if self.stem_width:
            x = append_stem(net, self.stem_width, STEM_STRIDE, choose.format)
            patch //= STEM_STRIDE
        reads_image = not self.stem_width
        x = net.patches("patch", x, width, patch, image=reads_image, precision=choose.format("patch"))
        x = net.reshape("flat", net.table("positions", x), 0, 0, -1)
        x = net.transpose("tokens", x, 0, 2, 1)

        def block(x: int, b: int) -> int:
            name = f"s0.b{b}"

            def formats(matrix: str) -> Precision:
                return choose.format(f"{name}.{matrix}")

            y = net.layer_norm(f"{name}.norm1", x)
            y = append_attention(net, name, y, choose(f"{name}.heads"), self.head_width, width, formats)
            x = net.add(f"{name}.add1", y, x)
            y = net.layer_norm(f"{name}.norm2", x)
            hidden = width * choose(f"{name}.percent") // 100
            return net.add(f"{name}.add2", append_feed_forward(net, name, y, hidden, width, formats), x)

        x = net.layer_norm("norm", choose.repeat(choose("s0.depth"), x, block))
        x = net.reshape("map", net.transpose("features", x, 0, 2, 1), 0, 0, -1, 1)
        net.linear(
            "classifier", net.global_pool("pool", x), self.classes, precision=choose.format("classifier")
        )


def append_attention(
    net: GraphBuilder, name: str, x: int, heads: int, head_width: int, width: int, formats: Formats
) -> int:
    """Append attention of all tokens (n, t, c) to all (Vaswani et al. 2017, arXiv:1706.03762), and the matrix
    that gives `width` features.

    The matrix of queries learns to divide scores by the root of the head's width (as in T5, Raffel et al.
    2020, arXiv:1910.10683). Keys have no bias: it would add the same to all scores of a query.
    """
    features = heads * head_width

    def split(part: str, perm: tuple[int, ...]) -> int:
        biased = part != "k"
        y = net.matmul(f"{name}.{part}", x, features, bias=biased, precision=formats("qkv"))
        return net.transpose(
            f"{name}.{part}.heads", net.reshape(f"{name}.{part}.split", y, 0, 0, heads, head_width), *perm
        )

    queries, keys, values = (
        split(part, perm) for part, perm in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3)))
    )
    shares = net.curve(f"{name}.softmax", net.product(f"{name}.scores", queries, keys), "Softmax")
    y = net.transpose(f"{name}.joined", net.product(f"{name}.mixed", shares, values), 0, 2, 1, 3)
    y = net.reshape(f"{name}.attended", y, 0, 0, features)
    return net.matmul(f"{name}.proj", y, width, precision=formats("proj"))


def digits_vit(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> ViTFamily:
    """Return transformers for scanned digits: 16 to 49 tokens, 0.16 to 9.3 MMACs."""
    return ViTFamily(
        name="digits-vit",
        resolutions=(16, 20, 28),
        patch=4,
        widths=(32, 48, 64),
        depths=(2, 3, 4),
        heads=(1, 2, 4),
        head_width=16,
        percents=(100, 200, 300),
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )


def cifar_vit(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> ViTFamily:
    """Return transformers at CIFAR size behind a convolutional stem: 36 to 64 tokens."""
    return ViTFamily(
        name="cifar-vit",
        resolutions=(24, 28, 32),
        patch=4,
        widths=(96, 128, 192),
        depths=(4, 6, 8),
        heads=(2, 3, 4, 6),
        head_width=32,
        percents=(100, 200, 400),
        in_channels=in_channels,
        classes=classes,
        formats=formats,
        stem_width=32,
    )

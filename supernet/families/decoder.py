"""Decoders of the LLaMA type (Touvron et al. 2023, arXiv:2302.13971): what comes next, at every position of a
text.

Elastic are the tokens that are read, the embedding width, the depth, the heads, the key-value heads and the
feed-forward width of each block, and the number format of every matrix and of what is kept between
tokens. Smaller networks have the first of
everything. All depths share one norm and one head, so that the first n blocks of a decoder with these two are
a decoder of its own (SortedNet, Valipour et al. 2023, arXiv:2309.00255): one file can hold several exits, see
`nas.export.exits`.

The head is not tied to the embedding: of 256 bytes both are small, and each has a number format of its own.
"""

from dataclasses import dataclass
from typing import ClassVar

from hw_profiles.graph.builder import GraphBuilder, Precision
from hw_profiles.graph.layer import FP32
from supernet.derive.choosing import Choose
from supernet.derive.inputs import TokenInput
from supernet.families.choices import blocks, length, of_stage, precision
from supernet.families.family import DEFAULT_FORMATS, Answers, Family
from supernet.families.parts import Formats
from supernet.space.space import Choice

MATRICES = ("qkv", "proj", "up", "down")  # of the gate, too, which reads what `up` does


@dataclass(frozen=True)
class DecoderFamily(Family):
    """Embedding, blocks of attention to what stands before and a gated feed-forward part, norm, head.

    Attributes:
        lengths: tokens that are read.
        widths: of the embedding.
        heads, groups, head_width: queries, and keys and values, that a block can have, and the features of
            each; every number of heads is a multiple of every one of groups. With fewer groups the same first
            ones serve more heads.
        hidden: features in the middle of a feed-forward part.
        positions: that can be told apart, at least the largest length.
        prompt, past: see `Family`.
        theta: base of the frequencies of rotary positions.
        caches: formats that keys and values can be kept in between tokens.
        in_channels: size of the vocabulary.
        classes: what can come next: all of it, as a rule.
    """

    answers: ClassVar[Answers] = "next"

    name: str
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    groups: tuple[int, ...]
    head_width: int
    hidden: tuple[int, ...]
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    positions: int = 2048
    prompt: int = 0
    past: int = 0
    theta: float = 1e4
    caches: tuple[str, ...] = (FP32, "fp16", "int8")

    @property
    def input(self) -> TokenInput:
        """Ids of the vocabulary."""
        return TokenInput(self.in_channels)

    def choices(self) -> list[Choice]:
        genes = [length(self.lengths), precision("embedding", self.formats)]
        genes += [of_stage(0, "width", self.widths, "pruning"), of_stage(0, "depth", self.depths)]
        for block in blocks(0, self.depths):
            sizes = {"heads": self.heads, "groups": self.groups, "hidden": self.hidden}
            genes += [block(role, options, "pruning") for role, options in sizes.items()]
            genes += [block.precision(matrix, self.formats) for matrix in MATRICES]
        return [*genes, precision("head", self.formats), precision("cache", self.caches)]

    def uniform(self, choice: Choice, fmt: str) -> int:
        """Return the gene of a network in `fmt` throughout, the cache too where it can be in that."""
        return choice.options.index(fmt if fmt in choice.options else FP32)

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        width = choose("s0.width")

        def block(x: int, b: int) -> int:
            name = f"s0.b{b}"

            def formats(matrix: str) -> Precision:
                return choose.format(f"{name}.{matrix}")

            y = net.rms_norm(f"{name}.norm1", x)
            sizes = choose(f"{name}.heads"), choose(f"{name}.groups")
            y = self._append_attention(net, name, y, sizes, formats, choose.format("cache"))
            y = net.matmul(f"{name}.proj", y, width, bias=False, precision=formats("proj"))
            x = net.add(f"{name}.add1", y, x, precision=FP32)
            y = net.rms_norm(f"{name}.norm2", x)
            y = append_gated(net, name, y, choose(f"{name}.hidden"), width, formats)
            return net.add(f"{name}.add2", y, x, precision=FP32)

        x = net.embedding(
            "embedding", net.input, self.in_channels, width, precision=choose.format("embedding")
        )
        x = net.rms_norm("norm", choose.repeat(choose("s0.depth"), x, block))
        net.matmul("head", x, self.classes, bias=False, precision=choose.format("head"))

    def _append_attention(
        self,
        net: GraphBuilder,
        name: str,
        x: int,
        sizes: tuple[int, int],
        formats: Formats,
        cache: Precision,
    ) -> int:
        """Append attention of `sizes` heads to groups, which gives (batch, t, heads x depth)."""
        heads, groups = sizes

        def project(part: str, count: int) -> int:
            features = count * self.head_width
            return net.matmul(f"{name}.{part}", x, features, bias=False, precision=formats("qkv"))

        def turned(part: str, count: int) -> int:
            y = project(part, count)
            return net.rotary(f"{name}.{part}.turned", y, count, length=self.positions, theta=self.theta)

        queries, keys, values = turned("q", heads), turned("k", groups), project("v", groups)
        return net.attention(
            f"{name}.attention", queries, keys, values, heads=heads, groups=groups, cache=cache
        )


def append_gated(net: GraphBuilder, name: str, x: int, hidden: int, width: int, formats: Formats) -> int:
    """Append a matrix times the SiLU of another, and the one that gives `width` features (Shazeer 2020,
    arXiv:2002.05202).
    """

    def project(part: str, features: int, y: int, matrix: str) -> int:
        return net.matmul(f"{name}.{part}", y, features, bias=False, precision=formats(matrix))

    gate, up = project("gate", hidden, x, "up"), project("up", hidden, x, "up")
    y = net.gated(f"{name}.gated", net.curve(f"{name}.silu", gate, "Swish"), up)
    return project("down", width, y, "down")


def text_decoder(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> DecoderFamily:
    """Return decoders that train in minutes: .09 to .6 M parameters, for `python-bytes`."""
    return DecoderFamily(
        name="text-decoder",
        lengths=(64, 128),
        widths=(64, 96, 128),
        depths=(2, 3, 4),
        heads=(2, 4),
        groups=(1, 2),
        head_width=32,
        hidden=(128, 192, 256),
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )


def text_decoder_5m(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> DecoderFamily:
    """Return decoders of 1 to 5 M parameters."""
    return DecoderFamily(
        name="text-decoder-5m",
        lengths=(128, 256),
        widths=(192, 256),
        depths=(3, 4, 5, 6),
        heads=(4, 8),
        groups=(2, 4),
        head_width=32,
        hidden=(384, 512, 768),
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )

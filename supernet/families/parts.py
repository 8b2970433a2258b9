"""Parts of networks that several families have."""

from collections.abc import Callable

from hw_profiles.graph.builder import GraphBuilder, Precision

Formats = Callable[[str], Precision | str]  # the precision of a layer by its name


def append_stem(
    net: GraphBuilder, width: int, stride: int, formats: Formats, *, activation: str = "relu"
) -> int:
    """Append the 3x3 convolution that reads the image."""
    sizes = {"kernel": 3, "stride": stride}
    return net.stem("stem", net.input, width, **sizes, activation=activation, precision=formats("stem"))


def append_tail(
    net: GraphBuilder, x: int, width: int, classes: int, formats: Formats, *, activation: str = "relu"
) -> int:
    """Append a pointwise convolution, the mean over each channel and the classifier."""
    x = net.conv("head", x, width, activation=activation, precision=formats("head"))
    return net.linear("classifier", net.global_pool("pool", x), classes, precision=formats("classifier"))


def append_feed_forward(
    net: GraphBuilder, name: str, x: int, hidden: int, width: int, formats: Formats
) -> int:
    """Append two matrices with a GELU between them, which gives `width` features of tokens (n, t, c)."""
    y = net.matmul(f"{name}.fc1", x, hidden, precision=formats("fc1"))
    return net.matmul(f"{name}.fc2", net.curve(f"{name}.gelu", y, "Gelu"), width, precision=formats("fc2"))

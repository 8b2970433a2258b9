"""Parts of networks that several families begin and end with."""

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

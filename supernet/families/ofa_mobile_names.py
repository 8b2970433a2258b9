"""Names of the tensors in published once-for-all files, as ours:
`supernet.zoo.ofa_checkpoint.ORIGINAL_NAMES`.
"""

import re
from collections.abc import Mapping

BLOCKS = 4  # of a stage, at its deepest; the published networks number blocks throughout

_PARTS: Mapping[str, str] = {
    "inverted_bottleneck.conv.": "expand.",
    "inverted_bottleneck.bn.": "expand.norm.",
    "depth_conv.conv.": "depthwise.",
    "depth_conv.bn.": "depthwise.norm.",
    "depth_conv.se.fc.reduce.": "squeeze.reduce.",
    "depth_conv.se.fc.expand.": "squeeze.excite.",
    "point_linear.conv.": "project.",
    "point_linear.bn.": "project.norm.",
}
_STEM: Mapping[str, str] = {"first_conv.conv.": "stem.", "first_conv.bn.": "stem.norm."}
_CLASSIFIER: Mapping[str, str] = {"classifier.linear.": "classifier."}
_MOBILENET_V3: Mapping[str, str] = {
    **_STEM,
    "final_expand_layer.conv.": "head.",
    "final_expand_layer.bn.": "head.norm.",
    "feature_mix_layer.conv.": "mix.",
    **_CLASSIFIER,
}
_PROXYLESS: Mapping[str, str] = {
    **_STEM,
    "feature_mix_layer.conv.": "head.",
    "feature_mix_layer.bn.": "head.norm.",
    **_CLASSIFIER,
}
_BLOCK = re.compile(r"blocks\.(\d+)\.conv\.(.+)")
_MATRIX = re.compile(r"\dto(\d)_matrix")


def mobilenet_v3(name: str) -> str | None:
    """Return our name of a tensor of `OFAMobileNetV3`; None for what it does not have.

    >>> mobilenet_v3("blocks.5.conv.depth_conv.conv.7to5_matrix")
    'stages.1.0.depthwise.transforms.5'
    """
    return _block(name) or _renamed(name, _MOBILENET_V3)


def proxyless(name: str) -> str | None:
    """Return our name of a tensor of `OFAProxylessNASNets`; None for what it does not have."""
    return _block(name) or _renamed(name, _PROXYLESS)


def _block(name: str) -> str | None:
    match = _BLOCK.fullmatch(name)
    part = _renamed(match[2], _PARTS) if match else None
    if match is None or part is None:
        return None
    s, b = divmod(int(match[1]) - 1, BLOCKS)
    place = "first" if s < 0 else f"stages.{s}.{b}"
    return f"{place}.{_MATRIX.sub(lambda matrix: f'transforms.{matrix[1]}', part)}"


def _renamed(name: str, prefixes: Mapping[str, str]) -> str | None:
    for prefix, replacement in prefixes.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return None

"""Names of the tensors in the published once-for-all ResNet50, as ours:
`supernet.zoo.ofa_checkpoint.ORIGINAL_NAMES`.
"""

import re
from collections.abc import Mapping
from itertools import accumulate

from supernet.families.ofa_resnet import BASE_DEPTHS, EXTRA_DEPTHS

STARTS = (0, *accumulate(base + max(EXTRA_DEPTHS) for base in BASE_DEPTHS))  # blocks are numbered throughout
_PARTS: Mapping[str, str] = {"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample": "shortcut"}
_KINDS: Mapping[str, str] = {"conv": "", "bn": "norm."}

# The residual convolution of the stem is wrapped once more, in some spellings.
_STEM = re.compile(r"input_stem\.([012])(?:\.conv)?\.(conv|bn)\.(\w+)")
_BLOCK = re.compile(r"blocks\.(\d+)\.(conv[123]|downsample)\.(conv|bn)\.(\w+)")
_CLASSIFIER = re.compile(r"classifier\.linear\.(weight|bias)")


def resnet50(name: str) -> str | None:
    """Return our name of a tensor of `OFAResNets`; None for what it does not have.

    >>> resnet50("input_stem.1.conv.bn.bias"), resnet50("blocks.4.downsample.conv.weight")
    ('stem.1.norm.bias', 'stages.1.0.shortcut.weight')
    """
    if match := _STEM.fullmatch(name):
        return f"stem.{match[1]}.{_KINDS[match[2]]}{match[3]}"
    if match := _BLOCK.fullmatch(name):
        position = int(match[1])
        s = sum(position >= start for start in STARTS[1:])
        if s == len(BASE_DEPTHS):
            return None
        return f"stages.{s}.{position - STARTS[s]}.{_PARTS[match[2]]}.{_KINDS[match[3]]}{match[4]}"
    if match := _CLASSIFIER.fullmatch(name):
        return f"classifier.{match[1]}"
    return None

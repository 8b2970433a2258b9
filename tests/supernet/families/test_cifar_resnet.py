"""MLPerf Tiny's network: the published costs, and the same as the one that is timed as a ruler."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from hw_profiles.graph.counts import macs
from supernet.families.cifar_resnet import cifar_resnet8


def test_it_has_the_published_multiply_adds() -> None:
    family = cifar_resnet8(in_channels=3, classes=10)
    for candidate in family.extremes().values():
        assert sum(map(macs, family.workload(candidate).layers)) == 12_501_632


def test_it_is_the_network_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    import rulers

    timed: Any = rulers.RULERS["MLPerf Tiny ResNet-8"].build()
    expected = Counter(
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
        for m in timed.modules()
        if isinstance(m, nn.Conv2d)
    )
    family = cifar_resnet8(in_channels=3, classes=10)
    layers = family.workload(family.extreme("largest")).layers
    assert expected == Counter(
        (layer.in_shape[0], layer.out_channels, layer.kernel, layer.stride)
        for layer in layers
        if layer.kind in ("conv", "stem")
    )

"""MobileNetV2 as published, where it is the same."""

import pytest

from hw_profiles.graph.counts import macs
from supernet.families.mobilenet_v2 import mobilenet_v2

POINTWISE = 32 * 32 * 112 * 112  # of the first block, which the original has not


@pytest.mark.parametrize(("width", "published"), [(1.0, 300.8e6), (1.4, 582.2e6)])
def test_multiply_adds_are_the_published_ones(width: float, published: float) -> None:
    family = mobilenet_v2(width, resolution=224, in_channels=3, classes=1000)
    (work,) = {family.workload(c) for name, c in family.extremes().items() if name == "largest/fp32"}
    extra = POINTWISE if width == 1 else 48 * 48 * 112 * 112
    assert sum(map(macs, work.layers)) - extra == pytest.approx(published, rel=5e-3)


def test_there_is_one_architecture() -> None:
    family = mobilenet_v2(0.5, resolution=32, in_channels=3, classes=10)
    corners = family.extremes()
    assert family.arch(corners["smallest/fp32"]) == family.arch(corners["largest/int8"])
    blocks = [block for stage in family.arch(corners["largest/fp32"]).stages for block in stage]
    assert len(blocks) == 17
    assert all(choice.kind == "precision" for choice in family.space().choices if len(choice.options) > 1)


def test_small_images_are_halved_less() -> None:
    sizes = []
    for resolution in (32, 224):
        family = mobilenet_v2(1.0, resolution=resolution, in_channels=3, classes=10)
        work = family.workload(family.extremes()["largest/fp32"])
        sizes += [layer.in_shape[1] for layer in work.layers if layer.kind == "pool"]
    assert sizes == [4, 7]

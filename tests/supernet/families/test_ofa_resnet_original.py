"""The published once-for-all ResNet50 beside ours, with the original code itself.

Needs the package `ofa` (`pip install --no-deps --target FOLDER ofa==0.1.0.post202307202001`, and torchvision
of the installed torch beside it) on PYTHONPATH.
"""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw_profiles.graph.counts import macs, params
from supernet.families.ofa_resnet import OfaResNetFamily, ofa_resnet50
from supernet.families.ofa_resnet_published import PublishedConfig, from_published
from supernet.zoo.ofa_checkpoint import Imported, import_original

pytestmark = pytest.mark.slow

CLASSES = 1000
PARITY = 1e-4  # relative to the largest logit: float32 sums in another order
SUBNETS = 12


@pytest.fixture(scope="module")
def original() -> Any:
    """The published network with random weights and statistics, in evaluation mode."""
    with warnings.catch_warnings():  # of code that is not ours
        warnings.simplefilter("ignore")
        try:
            from ofa.imagenet_classification.elastic_nn.networks import OFAResNets
        except (ImportError, RuntimeError) as error:  # torchvision raises the latter beside another torch
            pytest.skip(f"the original package is not here: {error}")
        net = OFAResNets(
            n_classes=CLASSES,
            dropout_rate=0,
            depth_list=[0, 1, 2],
            expand_ratio_list=[0.2, 0.25, 0.35],
            width_mult_list=[0.65, 0.8, 1.0],
        )
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
            nn.init.uniform_(module.running_mean, -0.5, 0.5, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def imported(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """Its checkpoint, through `nas import-ofa`'s own function."""
    path = tmp_path_factory.mktemp("ofa") / "ofa_resnet50"
    torch.save({"state_dict": original.state_dict()}, path)
    imported = import_original(Path(path), space="ofa-resnet50")
    assert isinstance(imported, Imported), imported.lines()[:5]
    return imported


def drawn(original: Any, n: int) -> Iterator[tuple[dict[str, Any], PublishedConfig]]:
    """Subnets that the original itself samples, made active."""
    random.seed(0)
    for _ in range(n):
        config = original.sample_active_subnet()
        yield config, PublishedConfig(tuple(config["d"]), tuple(config["e"]), tuple(config["w"]), (32,) * 61)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def test_subnets_compute_what_the_original_computes(original: Any, imported: Imported) -> None:
    family = imported.family
    assert isinstance(family, OfaResNetFamily)
    assert imported.fit.classes == CLASSES
    net = family.supernet(rng=np.random.default_rng(1)).eval()
    net.load_state_dict(dict(imported.model))
    outputs = []
    for i, (_, config) in enumerate(drawn(original, SUBNETS)):
        size = family.resolutions[i % len(family.resolutions)]
        x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(i))
        candidate = from_published(family, config, resolution=size)
        with torch.no_grad():
            expected = original(x)
            assert relative(net(x, family.arch(candidate)), expected) <= PARITY
            if i % 4 == 0:
                assert relative(family.extract(net, candidate).eval()(x), expected) <= PARITY
        outputs.append(expected)
    assert len({tuple(y.flatten().tolist()) for y in outputs}) == SUBNETS


def test_macs_and_parameters_are_those_that_the_original_counts(original: Any) -> None:
    from ofa.imagenet_classification.networks import ResNets
    from ofa.nas.efficiency_predictor import ResNet50LatencyTable
    from ofa.utils.flops_counter import profile

    family = ofa_resnet50(in_channels=3, classes=CLASSES)
    for i, (_, config) in enumerate(drawn(original, SUBNETS)):
        size = family.resolutions[i % len(family.resolutions)]
        layers = family.plain_workload(family.arch(from_published(family, config, resolution=size))).layers
        subnet = original.get_active_subnet(preserve_weight=False)
        assert isinstance(subnet, ResNets)
        counted = ResNet50LatencyTable.count_flops_given_config(subnet.config, size)
        assert sum(map(macs, layers)) == round(counted * 1e6)
        hooked, learned = profile(subnet, (1, 3, size, size))
        assert sum(map(macs, layers)) == pytest.approx(hooked, rel=1e-6)  # sums in float32
        # a folded batch norm leaves one number per channel of its two
        folded = sum(len(m.weight) for m in subnet.modules() if isinstance(m, nn.BatchNorm2d))
        assert sum(map(params, layers)) == pytest.approx(learned - folded, rel=1e-6)
        assert sum(map(params, layers)) + folded == sum(p.numel() for p in subnet.parameters())

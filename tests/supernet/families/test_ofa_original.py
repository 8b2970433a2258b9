"""Published checkpoints through our eyes: every subnet computes what the original code computes."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supernet.families.ofa_mobile import MobileFamily
from supernet.graph.subnet import recalibrate
from supernet.space.space import Candidate
from supernet.zoo.ofa_checkpoint import Imported, import_original

pytestmark = pytest.mark.slow

PARITY = 1e-4  # relative to the largest logit
SUBNETS, IMAGES, SIZE = 25, 3, 64
CASES = {  # class of the original, its width, and how it spells names when it saves
    "ofa-mbv3": ("OFAMobileNetV3", 1.0),
    "ofa-mbv3-w1.2": ("OFAMobileNetV3", 1.2),
    "ofa-proxyless": ("OFAProxylessNASNets", 1.3),
}


def randomise(net: nn.Module) -> None:
    """Numbers of a trained network's magnitude everywhere, kernel matrices near identity; in evaluation
    mode.
    """
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if name.endswith("matrix"):
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            nn.init.uniform_(tensor, -0.5, 0.5, generator=generator)
    net.eval()


@pytest.fixture(scope="module", params=sorted(CASES))
def both(
    request: pytest.FixtureRequest, once_for_all: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, MobileFamily, nn.Module]:
    """The original network, and ours with the file that it wrote."""
    kind, width = CASES[request.param]
    torch.manual_seed(0)
    net = getattr(once_for_all, kind)(
        n_classes=17,
        dropout_rate=0,
        width_mult=width,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[2, 3, 4],
    )
    randomise(net)
    path = tmp_path_factory.mktemp("original") / "init"
    torch.save({"state_dict": net.state_dict()}, path, _use_new_zipfile_serialization=False)
    imported = import_original(path)
    assert isinstance(imported, Imported)
    assert (imported.family.name, imported.fit.classes) == (request.param, 17)
    supernet = imported.family.supernet(rng=np.random.default_rng(0))
    supernet.load_state_dict(imported.model)
    return net, imported.family, supernet.eval()


def sampled(both: tuple[Any, MobileFamily, nn.Module], n: int) -> list[Candidate]:
    """Random architectures; the original network is told of one at a time by `activate`."""
    space = both[1].space()
    return [space.candidate(genome) for genome in space.sample(n, rng=np.random.default_rng(0))]


def activate(net: Any, family: MobileFamily, candidate: Candidate) -> None:
    decisions = family.space().decode(candidate)
    places = [divmod(position, 4) for position in range(len(net.blocks) - 1)]
    net.set_active_subnet(
        ks=[decisions.get(f"s{s}.b{b}.kernel", 7) for s, b in places],
        e=[decisions.get(f"s{s}.b{b}.expand", 6) for s, b in places],
        d=[decisions[f"s{s}.depth"] for s in range(len(family.layers.stages))],
    )


def images(seed: int) -> Tensor:
    return torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=PARITY * float(expected.abs().max()))


def test_subnets_compute_what_the_originals_compute(both: tuple[Any, MobileFamily, nn.Module]) -> None:
    net, family, ours = both
    outputs = []
    with torch.no_grad():
        for i, candidate in enumerate(sampled(both, SUBNETS)):
            activate(net, family, candidate)
            expected = net(images(i))
            assert_close(ours(images(i), family.arch(candidate)), expected)
            assert_close(family.extract(ours, candidate).eval()(images(i)), expected)
            assert_close(net.get_active_subnet().eval()(images(i)), expected)  # the comparison itself
            outputs.append(expected.std())
    assert min(outputs) > 1e-3


def test_recalibrated_subnets_compute_what_the_originals_compute(
    both: tuple[Any, MobileFamily, nn.Module],
) -> None:
    """Both with torch's own batch norm: once-for-all's averages variances without Bessel's correction."""
    net, family, ours = both
    batches = [images(100), images(101)]
    for candidate in sampled(both, 5):
        activate(net, family, candidate)
        theirs, subnet = net.get_active_subnet(), family.extract(ours, candidate)
        recalibrate(theirs, batches)
        recalibrate(subnet, batches)
        with torch.no_grad():
            assert_close(subnet(images(102)), theirs(images(102)))


def test_published_spellings_are_read_too(both: tuple[Any, MobileFamily, nn.Module], tmp_path: Path) -> None:
    """The files on record were written before blocks were renamed, and from data-parallel training."""
    net, family, ours = both
    renamed = {
        f"module.{name}".replace(".conv.", ".mobile_inverted_conv.", 1)
        if name.startswith("blocks")
        else name: t
        for name, t in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(renamed, tmp_path / "old")
    imported = import_original(tmp_path / "old", space=family.name)
    assert isinstance(imported, Imported)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(imported.model[name], tensor), name

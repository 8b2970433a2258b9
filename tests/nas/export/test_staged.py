"""Files of staged networks: every block type in integers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw_profiles.graph.counts import macs
from hw_profiles.runtimes.ort.runtime import OrtRuntime, open_exactly
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family
from supernet.families.staged import StagedFamily
from supernet.graph.simulate import simulate
from supernet.graph.subnet import recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate

BATCH = 2
LARGE_MACS = 10e6  # more would take seconds to simulate
SAME_CODES = 1e-6  # no code differs; the last layer gives real values


@pytest.fixture(scope="module", params=["digits-staged", "cifar-pooled"])
def family(request: pytest.FixtureRequest) -> StagedFamily:
    return load_family(request.param, in_channels=1, classes=10)


@pytest.fixture(scope="module")
def net(family: StagedFamily) -> nn.Module:
    net = family.supernet(rng=np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return net


def images(n: int, size: int) -> Tensor:
    return torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(n))


def candidates(family: StagedFamily) -> list[Candidate]:
    """The int8 corners, unless they are large, and networks of mixed formats."""
    space, corners = family.space(), family.extremes()
    mixed = [space.candidate(genome) for genome in space.sample(4, rng=np.random.default_rng(3))]
    networks = [corners["smallest/int8"], corners["largest/int8"], *mixed]
    return [each for each in networks if sum(map(macs, family.workload(each).layers)) < LARGE_MACS]


def test_integer_files_compute_what_the_simulation_computes(family: StagedFamily, net: nn.Module) -> None:
    for candidate in candidates(family):
        subnet, size = family.extract(net, candidate), family.resolution(candidate)
        recalibrate(subnet, [images(32, size)])
        network = quantize(subnet, family.workload(candidate), observe(subnet, images(32, size)))
        x = images(BATCH, size)
        expected = simulate(network, x).numpy()
        (found,) = open_exactly(emit(network, batch=BATCH)).run(None, {"image": x.numpy()})
        assert np.abs(found - expected).max() <= SAME_CODES * np.abs(expected).max()
        with torch.no_grad():
            plain = subnet(x).numpy()
        assert np.linalg.norm(expected - plain) < 0.3 * np.linalg.norm(plain)


def test_int8_files_run_on_integers_throughout(family: StagedFamily) -> None:
    """From the image to the logits: nothing is taken back to real numbers, sums among it."""
    work = family.workload(family.extreme("largest", "int8"))
    model = emit(random_network(work, rng=np.random.default_rng(0)))
    kernels = {op for op, count in OrtRuntime().compile(Artifact(model)).kernels().items() if count}
    integer = {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"}
    if any(layer.op == "MaxPool" for layer in work.layers):
        integer.add("NhwcMaxPool")
    assert kernels == {"QuantizeLinear", "Transpose", "Flatten", *integer}

"""What every registered family promises."""

import inspect
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.registry import names
from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.to_onnx import emit
from predictors.table import compile_peak
from supernet.families.family import FAMILIES, Family, load_family
from supernet.graph.executor import Unquantized, forward, layered
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate

CHANNELS, CLASSES, BATCH = 3, 7, 2
PARITY = 1e-5  # relative to the largest logit; float32 sums in another order differ by some 1e-7
ONNX_PARITY = 1e-4  # batch norm is folded there, which rounds every weight once more
LARGE_MACS = 100e6  # families whose networks reach more are run at their smallest resolution, fewer at a time


@pytest.fixture(scope="module", params=sorted(names("trilobit.spaces", FAMILIES)))
def each_family(request: pytest.FixtureRequest) -> Family:
    return load_family(request.param, in_channels=CHANNELS, classes=CLASSES)


@pytest.fixture(scope="module")
def net(each_family: Family) -> nn.Module:
    """In evaluation mode, with batch norms and a classifier that no two channels share."""
    net = each_family.supernet(rng=np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                nn.init.uniform_(tensor, low, high, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, generator=generator)
    return net.eval()


def candidates(family: Family, n: int) -> list[Candidate]:
    space = family.space()
    drawn = [space.candidate(genome) for genome in space.sample(n, rng=np.random.default_rng(1))]
    return [*family.corners().values(), *drawn]


def affordable(family: Family, candidate: Candidate) -> Candidate:
    """The same network, of a large family for the smallest images."""
    column = family.space().columns.get("resolution")
    if largest_macs(family) <= LARGE_MACS or column is None:
        return candidate
    genes = np.array(candidate.genes, np.int16)
    genes[column] = 0
    return family.space().candidate(genes)


def runnable(family: Family, n: int) -> list[Candidate]:
    """As `candidates`, but only as many as run in some seconds."""
    share = min(1.0, LARGE_MACS / largest_macs(family))
    return [affordable(family, candidate) for candidate in candidates(family, max(4, int(n * share)))]


def largest_macs(family: Family) -> int:
    return sum(map(macs, family.workload(family.corners()["largest/fp32"]).layers))


def images(family: Family, candidate: Candidate) -> Tensor:
    size = family.resolution(candidate)
    return torch.randn(BATCH, CHANNELS, size, size, generator=torch.Generator().manual_seed(0))


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_has_what_the_protocol_asks_for(each_family: Family) -> None:
    for name, member in vars(Family).items():
        if name.startswith("_"):
            continue
        found = getattr(each_family, name)
        if inspect.isfunction(member):
            wanted = list(inspect.signature(member).parameters)[1:]  # without self
            assert list(inspect.signature(found).parameters) == wanted


def test_is_what_was_asked_for(each_family: Family) -> None:
    assert (each_family.in_channels, each_family.classes) == (CHANNELS, CLASSES)
    again = load_family(each_family.name, in_channels=CHANNELS, classes=CLASSES)
    assert again.space().fingerprint == each_family.space().fingerprint


def test_its_peak_terms_give_the_memory_of_its_workloads(each_family: Family) -> None:
    chosen = candidates(each_family, 40)
    genomes = np.array([candidate.genes for candidate in chosen], np.int16)
    found = compile_peak(each_family.space(), each_family.peak_terms())(genomes)
    np.testing.assert_array_equal(found, [peak_bytes(each_family.workload(c)) for c in chosen])


def check_extraction(family: Family, net: nn.Module, chosen: Sequence[Candidate]) -> None:
    outputs = set()
    for candidate in chosen:
        x = images(family, candidate)
        with torch.no_grad():
            elastic = net(x, family.arch(candidate))
            static = family.extract(net, candidate).eval()(x)
        assert elastic.shape == (BATCH, CLASSES)
        assert_close(static, elastic, PARITY)
        outputs.add(tuple(elastic.flatten().tolist()))
    architectures = {repr(family.arch(candidate)) for candidate in chosen}
    assert len(outputs) == len(architectures)  # so that parity of all says something about each


def test_extracted_networks_compute_what_the_supernet_computes(each_family: Family, net: nn.Module) -> None:
    check_extraction(each_family, net, runnable(each_family, 16))


@pytest.mark.slow
def test_two_hundred_extracted_networks_compute_what_the_supernet_computes(
    each_family: Family, net: nn.Module
) -> None:
    check_extraction(each_family, net, [affordable(each_family, c) for c in candidates(each_family, 200)])


@torch.no_grad()
def test_workloads_run_on_the_supernets_own_layers(each_family: Family, net: nn.Module) -> None:
    """Which is how policies are trained: with the supernet's layers by name and the workload's sizes."""
    net.train()
    for candidate in runnable(each_family, 4)[-4:]:
        x, arch = images(each_family, candidate), each_family.arch(candidate)
        found = forward(layered(net), Unquantized(), each_family.plain_workload(arch), x)
        assert_close(found, net(x, arch), PARITY)
    net.eval()


def test_extracted_networks_are_copies(each_family: Family, net: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    subnet = each_family.extract(net, each_family.corners()["largest/fp32"])
    with torch.no_grad():
        for tensor in subnet.state_dict().values():
            tensor.zero_()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_no_network_is_remembered_from_one_forward_to_the_next(each_family: Family, net: nn.Module) -> None:
    corners = each_family.corners()
    one, other = (affordable(each_family, corners[f"{size}/fp32"]) for size in ("smallest", "largest"))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        first, _, again = (
            net(images(each_family, candidate), each_family.arch(candidate))
            for candidate in (one, other, one)
        )
    assert torch.equal(first, again)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_seed_decides_the_first_weights(each_family: Family) -> None:
    first, again, other = (
        torch.cat([p.flatten() for p in each_family.supernet(rng=np.random.default_rng(seed)).parameters()])
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fp32_files_compute_what_torch_computes(each_family: Family, net: nn.Module) -> None:
    candidate = deepest(each_family)[1]  # every layer there is, and of no more channels than need be
    subnet, x = each_family.extract(net, candidate).eval(), images(each_family, candidate)
    plain = each_family.plain_workload(each_family.arch(candidate))
    session = open_exactly(emit(quantize(subnet, plain, observe(subnet, x)), batch=BATCH))
    (logits,) = session.run(None, {"image": x.numpy()})
    with torch.no_grad():
        assert_close(torch.from_numpy(logits), subnet(x), ONNX_PARITY)


def deepest(family: Family) -> list[Candidate]:
    """The largest network, and the one with as many layers but everything else as small as can be."""
    space, largest = family.space(), family.corners()["largest/fp32"]
    parents = {name for choice in space.choices for name, _ in choice.active_if}
    kept = [gene if c.name in parents else 0 for c, gene in zip(space.choices, largest.genes, strict=True)]
    return [affordable(family, one) for one in (largest, space.candidate(np.array(kept, np.int16)))]


def test_gradients_reach_every_parameter_of_the_deepest_networks(each_family: Family, net: nn.Module) -> None:
    net.zero_grad()
    for candidate in deepest(each_family):
        net(images(each_family, candidate), each_family.arch(candidate)).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    net.zero_grad()
    assert silent == []


def test_an_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(TrilobitError, match=r"unknown space .resnet.; known: .*cifar-mbconv, digits-mbconv"):
        load_family("resnet", in_channels=1, classes=10)

"""Networks of a supernet with caches of codes: their scales, and that files with a cache say the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.graph.cache import with_cache
from hw_profiles.graph.formats import CACHE_DTYPES
from hw_profiles.graph.lowering import lower
from nas.emit.to_onnx import emit
from supernet.graph.executor import layered
from supernet.graph.quantized_graph import QuantizedGraph, cache_names
from supernet.graph.simulate import simulate, simulate_all
from supernet.ptq.calibrate import observe, quantize
from supernet.qat.deploy import deploy
from supernet.qat.learned import find_structure, new_quantizers
from supernet.space.space import Candidate
from tests.contracts.operation_parity import in_file
from tests.nas.tiny_decoder import tiny_decoder

FAMILY = tiny_decoder(in_channels=64, classes=64)
TEXTS = FAMILY.input.drawn(8, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    net = FAMILY.supernet(rng=np.random.default_rng(0)).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return net


def with_format(cache: str) -> Candidate:
    genes = np.array(FAMILY.extreme("largest").genes, np.int16)
    genes[FAMILY.space().columns["cache.format"]] = FAMILY.caches.index(cache)
    return FAMILY.space().candidate(genes)


def calibrated(net: nn.Module, candidate: Candidate) -> QuantizedGraph:
    subnet = FAMILY.extract(net, candidate).eval()
    return quantize(subnet, FAMILY.workload(candidate), observe(subnet, TEXTS))


def test_caches_of_codes_reach_as_far_as_keys_and_values_were_seen(net: nn.Module) -> None:
    network = calibrated(net, with_format("int8"))
    subnet = FAMILY.extract(net, with_format("int8")).eval()
    with torch.no_grad():
        tensors = dict(zip(subnet.workload.names, subnet.tensors(TEXTS), strict=True))
    for b in range(3):
        names = cache_names(f"s0.b{b}.attention")
        for key, source in zip(names, ("k.turned", "v"), strict=True):
            seen = float(tensors[f"s0.b{b}.{source}"].abs().max())
            assert network.tensors[key].scale == pytest.approx(seen / 127)


# a sum in another order puts a few numbers on the other side of a tie of what a cache holds
CLOSE = {"fp32": 1e-4, "fp16": 2e-3, "int8": 0.05}


@pytest.mark.parametrize("cache", FAMILY.caches)
def test_a_file_with_a_cache_says_what_the_simulation_says_without(net: nn.Module, cache: str) -> None:
    candidate = with_format(cache)
    network = calibrated(net, candidate)
    plain = simulate(network, TEXTS).numpy()
    cached = replace(network, workload=lower(with_cache(FAMILY.open_workload(candidate))))
    file, grown, said = emit(cached, batch=None), [], []
    for x in cached.workload.feeds[2:]:
        shape = (len(TEXTS), int(x.type.shape[1]), 0, int(x.type.shape[3]))
        grown.append(np.zeros(shape, CACHE_DTYPES[x.type.format]))
    for start, end in ((0, 9), *((i, i + 1) for i in range(9, 16))):
        places = np.ascontiguousarray(np.broadcast_to(np.arange(start, end), (len(TEXTS), end - start)))
        given = (TEXTS[:, start:end].numpy(), places, *grown)
        feeds = dict(zip((feed.name for feed in cached.workload.feeds), given, strict=True))
        here, *_ = simulate_all(cached, [torch.from_numpy(x) for x in feeds.values()])
        logits, *grown = in_file(file, feeds)
        np.testing.assert_allclose(logits, here.numpy(), atol=CLOSE[cache])
        said.append(logits)
    logits = np.concatenate(said, 1)
    np.testing.assert_allclose(logits, plain, atol=CLOSE[cache])
    assert (logits.argmax(-1) == plain.argmax(-1)).mean() >= 0.99
    assert len(set(plain.argmax(-1).ravel().tolist())) > 10  # not one id everywhere


def test_a_network_with_learned_scales_keeps_codes_too(net: nn.Module) -> None:
    genes = np.repeat(np.array([FAMILY.extreme("largest", "int8").genes], np.int16), 3, axis=0)
    genes[:, FAMILY.space().columns["s0.depth"]] = range(3)
    depths = map(FAMILY.space().candidate, FAMILY.space().canonical(genes))
    samples = [(FAMILY.workload(candidate), TEXTS) for candidate in depths]
    quantizers = new_quantizers(find_structure(FAMILY), layered(net), samples)
    network = deploy(layered(net), quantizers, FAMILY.workload(with_format("int8")), [TEXTS])
    expected = calibrated(net, with_format("int8"))
    for key in cache_names("s0.b0.attention"):
        assert network.tensors[key].scale == pytest.approx(expected.tensors[key].scale, rel=1e-5)
    found, plain = simulate(network, TEXTS), simulate(expected, TEXTS)
    assert (found.argmax(-1) == plain.argmax(-1)).float().mean() > 0.9

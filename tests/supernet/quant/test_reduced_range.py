"""On devices whose integer sums may saturate int8 weights have codes of 7 bits, however they were found."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums
from supernet.families.family import Family, load_family
from supernet.formats.loading import load_format, load_weight_format
from supernet.graph.executor import folded, layered, recalibrated, run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.qat.deploy import deploy
from supernet.qat.learned import LearnedQuantizers, find_structure
from supernet.tasks.evaluate import build_network, calibration_examples
from supernet.tasks.image_classification import ImageClassification
from supernet.train.quantized import first_quantizers

REDUCED = (IntegerSums.SATURATING, IntegerSums.UNKNOWN)
FORMATS = ("fp32", "int8", "int8-exact", "int4")


@pytest.fixture(scope="module")
def wide() -> Family:
    return load_family("digits-mbconv", in_channels=1, classes=10, formats=FORMATS)


def largest_codes(network: QuantizedGraph) -> dict[str, int]:
    """The largest code among the weights of each format."""
    work, largest = network.workload, dict[str, int]()
    for name, layer in zip(work.names, work.layers, strict=True):
        if layer.weighted:
            codes = int(np.abs(network.parameters[name].weight.codes).max())
            largest[layer.weight_format] = max(codes, largest.get(layer.weight_format, 0))
    return largest


@pytest.mark.parametrize("sums", IntegerSums)
def test_only_int8_means_something_else(sums: IntegerSums) -> None:
    for name in ("fp32", "fp16", "int8-exact", "int6", "int4", "int2"):
        assert load_weight_format(name, sums) is load_format(name).weight
    reduced = load_weight_format("int8", sums)
    assert reduced.stored_as == "INT8"
    assert reduced.bits == (7 if sums in REDUCED else 8)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("sums", IntegerSums)
def test_a_network_has_the_codes_of_its_device(
    wide: Family, few_digits: ImageClassification, sums: IntegerSums, *, learned: bool
) -> None:
    net = wide.supernet(rng=np.random.default_rng(0)).eval()
    calibration = calibration_examples(few_digits, seed=0)[:64]
    scales = first_quantizers(wide, net, few_digits, images=32, seed=0, sums=sums) if learned else None
    largest = {}
    for fmt in ("int8", "int8-exact"):
        candidate = wide.extremes()[f"smallest/{fmt}"]
        network = build_network(wide, net, candidate, few_digits, calibration, scales, sums=sums)
        largest |= largest_codes(network)
        images = torch.randn(4, *network.workload.in_shape)
        if sums in REDUCED:
            saturated = simulate(network, images, IntegerSums.SATURATING)
            assert torch.equal(simulate(network, images), saturated)
    assert largest["int8-exact"] > 2 * WIDEST_EXACT - 10
    assert (largest["int8"] <= 63) is (sums in REDUCED)
    assert largest["int8"] > 63 - 8


@pytest.mark.parametrize("sums", IntegerSums)
def test_what_is_trained_is_what_is_deployed(
    wide: Family, few_digits: ImageClassification, sums: IntegerSums
) -> None:
    net = wide.supernet(rng=np.random.default_rng(0)).eval()
    scales = first_quantizers(wide, net, few_digits, images=32, seed=0, sums=sums)
    work = wide.workload(wide.extremes()["smallest/int8"])
    images = torch.randn(32, *work.in_shape, generator=torch.Generator().manual_seed(0))
    batches: Sequence[Tensor] = [images]
    expected = simulate(deploy(layered(net), scales, work, batches), images)
    statistics = recalibrated(layered(net), scales, work, batches)
    with torch.no_grad():
        trained = run(layered(net), scales, work, images, folded(scales, statistics))[-1]
    same = (expected - trained).abs().amax(dim=1) <= 1e-4 * expected.abs().max()
    assert same.float().mean() >= 0.9  # a code on a tie may tip over


def test_scales_know_what_they_round_for(wide: Family) -> None:
    structure = find_structure(wide)
    bits = {sums: LearnedQuantizers(structure, sums).weight_bits("int8") for sums in IntegerSums}
    assert bits == {IntegerSums.EXACT: 8, IntegerSums.SATURATING: 7, IntegerSums.UNKNOWN: 7}

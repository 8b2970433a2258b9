"""APQ's space: its sizes, its layers, its formats, and what its networks are made of."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import FP32, Layer, map_layer
from hw_profiles.graph.workload import Workload
from supernet.families.apq import ENDS, GENES, ApqFamily, apq_proxyless
from supernet.formats.loading import Precision
from supernet.space.space import Candidate

FAMILY = apq_proxyless(in_channels=3, classes=1000)
SPACE = FAMILY.space()
# of every stage: input width, output width, stride and the size of the map that it reads
STAGES = (
    (16, 24, 2, 112),
    (24, 40, 2, 56),
    (40, 80, 2, 28),
    (80, 96, 1, 14),
    (96, 192, 2, 14),
    (192, 320, 1, 7),
)
POSITIONS = [(s, b) for s in range(6) for b in range(4 if s < 5 else 1)]


def candidates(n: int, *, policy: str | None = "integer", family: ApqFamily = FAMILY) -> list[Candidate]:
    space = family.space()
    genomes = space.sample(n, rng=np.random.default_rng(0))
    if policy is not None:
        genomes[:, space.columns["policy"]] = space.choices[0].options.index(policy)
    return [space.candidate(genome) for genome in genomes]


def named(work: Workload) -> dict[str, Layer]:
    return dict(zip(work.names, work.layers, strict=True))


# -- the space -----------------------------------------------------------------------------------------------


def test_the_space_is_the_published_one() -> None:
    assert len(POSITIONS) == 21
    for s, b in POSITIONS:
        c = STAGES[s][0] if b == 0 else STAGES[s][1]
        options = {
            name: SPACE.choices[SPACE.columns[f"s{s}.b{b}.{name}"]].options for name in ("kernel", "expanded")
        }
        assert options == {"kernel": (3, 5, 7), "expanded": tuple(range(4 * c, 6 * c + 1, 8))}
        for gene in GENES:
            assert set(SPACE.choices[SPACE.columns[f"s{s}.b{b}.{gene}"]].options) == {"int4", "int6", "int8"}
    depths = [choice.options for choice in SPACE.choices if choice.name.endswith(".depth")]
    assert depths == [(2, 3, 4)] * 5
    assert len(SPACE.choices) == 1 + 5 + 21 * 6


def test_its_size_counts_every_architecture_once_in_fp32_and_in_all_policies_of_its_positions() -> None:
    plain = quantized = 1
    for s, (c, width, _, _) in enumerate(STAGES):
        blocks = [3 * (2 * one // 8 + 1) for one in (c, width, width, width)]
        depths = (2, 3, 4) if s < 5 else (1,)
        plain *= sum(math.prod(blocks[:depth]) for depth in depths)
        quantized *= sum(math.prod(blocks[:depth]) * 81**depth for depth in depths)
    assert SPACE.size == plain + quantized
    integer = apq_proxyless(in_channels=3, classes=1000, formats=("int8", "int6", "int4"))
    assert integer.space().size == quantized


def test_decisions_are_decoded_and_encoded() -> None:
    for candidate in candidates(30, policy=None):
        assert SPACE.encode(SPACE.decode(candidate)) == candidate


def test_no_format_of_a_position_is_alive_in_fp32() -> None:
    for candidate in candidates(10, policy=FP32):
        decisions = SPACE.decode(candidate)
        assert not [name for name in decisions if name.endswith(GENES)]
        assert set(FAMILY.policy(candidate).values()) == {Precision()}
        assert FAMILY.workload(candidate) == FAMILY.plain_workload(FAMILY.arch(candidate))


def test_corners_are_uniform_and_bound_every_architecture() -> None:
    corners = FAMILY.extremes()
    formats = (FP32, "int8", "int6", "int4")
    assert list(corners) == [f"{size}/{fmt}" for size in ("smallest", "largest") for fmt in formats]
    for name, candidate in corners.items():
        fmt, policy = name.partition("/")[2], FAMILY.policy(candidate)
        assert {policy[layer] for layer in policy if layer not in ENDS} == {Precision(fmt, fmt)}
        assert {policy[end].weight for end in ENDS} == {FP32 if fmt == FP32 else "int8"}
    costs = [sum(map(macs, FAMILY.workload(candidate).layers)) for candidate in candidates(50)]
    least, most = (
        sum(map(macs, FAMILY.workload(corners[f"{size}/int4"]).layers)) for size in ("smallest", "largest")
    )
    assert least <= min(costs)
    assert max(costs) <= most


@pytest.mark.parametrize("formats", [("fp16", "int8"), (FP32,), (FP32, "int4/int8"), (FP32, "int2")])
def test_formats_that_it_cannot_choose_are_refused(formats: tuple[str, ...]) -> None:
    with pytest.raises(
        TrilobitError, match=r"apq-proxyless cannot be searched in .* int8, int6, int4 at least one"
    ):
        apq_proxyless(in_channels=3, classes=10, formats=formats)


# -- workloads -----------------------------------------------------------------------------------------------


def test_a_workload_has_the_published_layers() -> None:
    for candidate in candidates(20):
        layers, decisions = named(FAMILY.workload(candidate)), SPACE.decode(candidate)
        assert layers["stem"] == map_layer("stem", (3, 224, 224), 32, 3, 2, 1, "relu6", "int8", "int8")
        size = (32, 112, 112)
        assert layers["first.depthwise"] == map_layer("conv", size, 32, 3, 1, 32, "relu6", "int8", "int8")
        assert layers["first.project"] == map_layer("conv", size, 16, 1, 1, 1, "none", "int8", "int8")
        assert layers["head"] == map_layer("conv", (320, 7, 7), 1280, 1, 1, 1, "relu6", "int8", "int8")
        for s, b in POSITIONS:
            used = b < int(decisions.get(f"s{s}.depth", 1))
            assert (f"s{s}.b{b}.expand" in layers) == used
            if used:
                check_block(layers, decisions, s, b)


def check_block(layers: dict[str, Layer], decisions: dict[str, int | str], s: int, b: int) -> None:
    """In the order of the published table: pointwise, depthwise, pointwise."""
    name, (entry, width, stride, size) = f"s{s}.b{b}", STAGES[s]
    if b > 0:
        entry, size, stride = width, size // stride, 1
    middle, kernel = int(decisions[f"{name}.expanded"]), int(decisions[f"{name}.kernel"])
    point_w, point_a, deep_w, deep_a = (str(decisions[f"{name}.{gene}"]) for gene in GENES)
    assert [layers[f"{name}.{part}"] for part in ("expand", "depthwise", "project")] == [
        map_layer("conv", (entry, size, size), middle, 1, 1, 1, "relu6", point_w, point_a),
        map_layer("conv", (middle, size, size), middle, kernel, stride, middle, "relu6", deep_w, deep_a),
        map_layer("conv", (middle, size // stride, size // stride), width, 1, 1, 1, "none", point_w, point_a),
    ]
    assert (f"{name}.add" in layers) == (b > 0)


def test_the_policy_is_that_of_the_weighted_layers() -> None:
    for candidate in candidates(20, policy=None):
        work, policy = FAMILY.workload(candidate), FAMILY.policy(candidate)
        formats = {
            n: Precision(x.weight_format, x.activation_format) for n, x in named(work).items() if x.weighted
        }
        assert formats == policy


def test_a_tensor_is_converted_where_its_reader_is_of_another_width() -> None:
    kinds = Counter[str]()
    for candidate in candidates(20):
        work = FAMILY.workload(candidate)
        plain = FAMILY.plain_workload(FAMILY.arch(candidate))
        kept = [n for n, x in named(work).items() if not x.is_conversion]
        assert kept == list(plain.names)
        for layer, sources in zip(work.layers, work.inputs, strict=True):
            if layer.kind == "quantize" and sources[0] >= 0:
                before = work.layers[sources[0]]  # integers change their width through fp32
                assert before.kind == "dequantize"
                assert before.activation_format != layer.activation_format
            kinds[layer.kind] += 1
    assert min(kinds[op] for op in ("add", "add_converted", "quantize", "dequantize")) > 0


# -- networks ------------------------------------------------------------------------------------------------


def counted(net: nn.Module, layers: Sequence[str], size: int) -> Counter[str]:
    """Multiply-adds and parameters of a torch module's convolutions and linear layers, seen while it runs."""
    counts = Counter[str]()

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        assert isinstance(module.weight, torch.Tensor)
        positions = output[0, 0].numel() if output.ndim == 4 else 1
        counts["macs"] += module.weight.numel() * positions
        counts["params"] += module.weight.numel() + module.weight.shape[0]  # batch norm becomes a bias
        counts["layers"] += 1

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    assert counts["layers"] == len(layers)
    return counts


def test_macs_and_parameters_are_those_of_the_extracted_modules() -> None:
    net = FAMILY.supernet(rng=np.random.default_rng(0))
    for candidate in [*candidates(3), FAMILY.extremes()["smallest/int4"], FAMILY.extremes()["largest/fp32"]]:
        work = FAMILY.workload(candidate)
        weighted = [name for name, layer in named(work).items() if layer.weighted]
        found = counted(FAMILY.extract(net, candidate).eval(), weighted, FAMILY.resolution(candidate))
        assert found["macs"] == sum(map(macs, work.layers))
        assert found["params"] == sum(map(params, work.layers))


def test_the_largest_network_has_the_published_size() -> None:
    """Of ProxylessNAS's stages with 4 blocks each, 7x7 kernels and 6 times the channels."""
    work = FAMILY.plain_workload(FAMILY.arch(FAMILY.extremes()["largest/fp32"]))
    total = 0
    for s, b in POSITIONS:
        entry, width, stride, size = (
            STAGES[s] if b == 0 else (STAGES[s][1], STAGES[s][1], 1, STAGES[s][3] // STAGES[s][2])
        )
        middle, after = 6 * entry, size // stride
        total += middle * (size**2 * entry + after**2 * (49 + width))
    ends = 112**2 * (27 * 32 + 9 * 32 + 32 * 16) + 49 * 320 * 1280 + 1280 * 1000
    assert sum(map(macs, work.layers)) == total + ends


def test_batch_norms_are_the_published_ones_and_relu6_bounds_what_is_between() -> None:
    net = FAMILY.supernet(rng=np.random.default_rng(0))
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    subnet = FAMILY.extract(net, FAMILY.extremes()["smallest/fp32"]).eval()
    with torch.no_grad():
        tensors = subnet.tensors(torch.full((1, 3, 224, 224), 1e3))
    for name, tensor in zip(subnet.workload.names, tensors, strict=True):
        if name.endswith(("stem", "expand", "depthwise", "head")):
            assert float(tensor.min()) >= 0
            assert float(tensor.max()) <= 6
    copied = [module.eps for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    assert set(copied) == {1e-3}


def test_another_network_cannot_be_extracted_from() -> None:
    with pytest.raises(TrilobitError, match=r"Linear .* needs a method layer\(name\)"):
        FAMILY.extract(nn.Linear(1, 1), FAMILY.extremes()["smallest/fp32"])


def test_the_elastic_network_runs_any_architecture() -> None:
    net = FAMILY.supernet(rng=np.random.default_rng(0))
    with torch.no_grad():
        logits = net(torch.zeros(2, 3, 32, 32), FAMILY.arch(candidates(1)[0]))  # smaller maps do too
    assert logits.shape == (2, 1000)

"""The inverted-residual family: what genes mean, what workloads say, and sizes that must never change."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.workload import Workload
from supernet.families.family import FAMILIES, load_family
from supernet.families.mbconv import PARTS, MBConvFamily, Stage
from supernet.space.space import Candidate

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "families.json").read_text())
CONVERSIONS = ("quantize", "dequantize")


@pytest.fixture(scope="module", params=sorted(name for name in FAMILIES if name.endswith("-mbconv")))
def each_family(request: pytest.FixtureRequest) -> MBConvFamily:
    return load_family(request.param, in_channels=3, classes=7)


def candidates(family: MBConvFamily, n: int) -> list[Candidate]:
    space = family.space()
    return [space.candidate(genome) for genome in space.sample(n, rng=np.random.default_rng(0))]


def named(work: Workload) -> dict[str, Layer]:
    return dict(zip(work.names, work.layers, strict=True))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_spaces_never_change(name: str) -> None:
    """A change makes every saved profile, checkpoint and front of the space unusable: give it a new name."""
    space = load_family(name, in_channels=1, classes=10).space()
    assert {"size": space.size, "fingerprint": space.fingerprint} == GOLDEN[name]


def test_every_built_in_family_has_golden_values() -> None:
    assert set(GOLDEN) == set(FAMILIES)


def test_the_default_space_has_more_than_a_million_million_networks(family: MBConvFamily) -> None:
    assert family.space().size > 10**12


def test_an_architecture_is_what_its_genes_name(each_family: MBConvFamily) -> None:
    space = each_family.space()
    for candidate in candidates(each_family, 20):
        decisions, arch = space.decode(candidate), each_family.arch(candidate)
        assert arch.resolution == each_family.resolution(candidate) == decisions["resolution"]
        assert [len(blocks) for blocks in arch.stages] == [
            decisions[f"s{s}.depth"] for s in range(len(each_family.stages))
        ]
        for s, blocks in enumerate(arch.stages):
            for b, block in enumerate(blocks):
                assert block == {role: decisions[f"s{s}.b{b}.{role}"] for role in ("kernel", "expanded")}


def test_a_policy_names_exactly_the_weighted_layers(each_family: MBConvFamily) -> None:
    for candidate in candidates(each_family, 20):
        work, policy = each_family.workload(candidate), each_family.policy(candidate)
        formats = {
            name: (layer.weight_format, layer.activation_format)
            for name, layer in zip(work.names, work.layers, strict=True)
            if layer.weighted
        }
        assert formats == {name: (p.weight, p.activation) for name, p in policy.items()}


def test_a_workload_has_the_layers_of_the_architecture(each_family: MBConvFamily) -> None:
    for candidate in candidates(each_family, 20):
        layers, arch = named(each_family.workload(candidate)), each_family.arch(candidate)
        assert each_family.workload(candidate).in_shape == (3, arch.resolution, arch.resolution)
        for s, blocks in enumerate(arch.stages):
            for b, block in enumerate(blocks):
                expand, depthwise, project = (layers[f"s{s}.b{b}.{part}"] for part in PARTS)
                assert expand.out_channels == depthwise.groups == project.in_shape[0] == block["expanded"]
                assert (expand.kernel, depthwise.kernel, project.kernel) == (1, block["kernel"], 1)
                assert depthwise.stride == (each_family.stages[s].stride if b == 0 else 1)
                assert project.out_channels == each_family.stages[s].width
        depths = Counter(name.split(".b")[0] for name in layers if name.endswith(".project"))
        assert [depths[f"s{s}"] for s in range(len(arch.stages))] == [len(blocks) for blocks in arch.stages]


def test_sums_take_the_projection_s_format_and_say_whether_the_shortcut_was_converted(
    each_family: MBConvFamily,
) -> None:
    kinds = Counter[str]()
    for candidate in candidates(each_family, 40):
        work, policy = each_family.workload(candidate), each_family.policy(candidate)
        for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
            if layer.is_add:
                converted = work.layers[sources[1]].is_conversion
                assert (layer.kind == "add_converted") == converted
                assert layer.activation_format == policy[name.replace(".add", ".project")].activation
                kinds[layer.kind] += 1
    assert min(kinds["add"], kinds["add_converted"]) > 0


def test_uniform_policies_convert_nothing_but_the_image(each_family: MBConvFamily) -> None:
    for name, candidate in each_family.extremes().items():
        work = each_family.workload(candidate)
        conversions = [
            n for n, layer in zip(work.names, work.layers, strict=True) if layer.kind in CONVERSIONS
        ]
        assert conversions == ([] if name.endswith(FP32) else ["input.quantize"])


def test_conversions_stand_where_neighbours_disagree(each_family: MBConvFamily) -> None:
    """Without its conversions a mixed network is the plain one with other formats."""
    for candidate in candidates(each_family, 20):
        mixed = each_family.workload(candidate)
        plain = each_family.plain_workload(each_family.arch(candidate))
        kept = [
            n for n, layer in zip(mixed.names, mixed.layers, strict=True) if layer.kind not in CONVERSIONS
        ]
        assert kept == list(plain.names)
        for layer, sources in zip(mixed.layers, mixed.inputs, strict=True):
            if layer.kind in CONVERSIONS:
                assert layer.in_format != layer.out_format
                assert all(i < 0 or not mixed.layers[i].is_conversion for i in sources)


def test_a_plain_workload_is_that_of_the_candidate_in_fp32(each_family: MBConvFamily) -> None:
    space = each_family.space()
    formats = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    for candidate in candidates(each_family, 20):
        genome = np.array(candidate.genes, np.int16)
        genome[formats] = each_family.formats.index(FP32)
        fp32 = each_family.workload(space.candidate(genome))
        assert each_family.plain_workload(each_family.arch(candidate)) == fp32


def test_corners_bound_every_architecture(each_family: MBConvFamily) -> None:
    def cost(candidate: Candidate) -> int:
        return sum(map(macs, each_family.workload(candidate).layers))

    corners = each_family.extremes()
    assert set(corners) == {f"{size}/{fmt}" for size in ("smallest", "largest") for fmt in ("fp32", "int8")}
    least, most = (each_family.arch(corners[f"{size}/int8"]) for size in ("smallest", "largest"))
    for name, candidate in corners.items():
        size, _, fmt = name.partition("/")
        assert each_family.arch(candidate) == (least if size == "smallest" else most)
        assert {str(precision) for precision in each_family.policy(candidate).values()} == {fmt}
    costs = [cost(candidate) for candidate in candidates(each_family, 50)]
    assert cost(corners["smallest/fp32"]) <= min(costs)
    assert max(costs) <= cost(corners["largest/fp32"])


def test_macs_and_parameters_equal_those_of_the_extracted_modules(each_family: MBConvFamily) -> None:
    net = each_family.supernet(rng=np.random.default_rng(0))
    for candidate in candidates(each_family, 5):
        subnet = each_family.extract(net, candidate).eval()
        counted = Counter[str]()

        def count(
            module: nn.Module, inputs: object, output: torch.Tensor, counted: Counter[str] = counted
        ) -> None:
            assert isinstance(module.weight, torch.Tensor)
            positions = output[0, 0].numel() if output.ndim == 4 else 1
            counted["macs"] += module.weight.numel() * positions
            counted["params"] += module.weight.numel() + module.weight.shape[0]  # batch norm becomes a bias

        for module in subnet.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        size = each_family.resolution(candidate)
        with torch.no_grad():
            subnet(torch.zeros(1, 3, size, size))
        layers = each_family.workload(candidate).layers
        assert counted == {"macs": sum(map(macs, layers)), "params": sum(map(params, layers))}


def test_a_stage_of_another_width_or_stride_has_no_shortcut() -> None:
    stages = (Stage(8, 1, (2,), (8,), (3,)), Stage(16, 1, (2,), (8,), (3,)), Stage(16, 2, (2,), (8,), (3,)))
    family = MBConvFamily("shortcuts", (8,), 8, stages, 16, 1, 4)
    work = family.workload(family.extremes()["smallest/fp32"])
    sums = [name for name in work.names if name.endswith(".add")]
    assert sums == ["s0.b0.add", "s0.b1.add", "s1.b1.add", "s2.b1.add"]


def test_another_network_cannot_be_extracted_from(family: MBConvFamily) -> None:
    with pytest.raises(TrilobitError, match=r"Linear .* needs a method layer\(name\)"):
        family.extract(nn.Linear(1, 1), family.extremes()["smallest/fp32"])

"""What spaces are designed from."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.design.base import Base, SubStage, base_of, draw_sub_stages, ends_workloads, stage_workload
from supernet.families.family import load_family
from supernet.families.staged import Sizes, middle_channels

TYPES = ("inverted", "fused", "separable")


@pytest.fixture(scope="module")
def base() -> Base:
    return base_of(load_family("digits-mbconv", in_channels=1, classes=10), TYPES)


def test_widths_surround_the_teachers_own_in_windows_of_two(base: Base) -> None:
    assert base.stages[2].widths == (24, 32, 40, 48)
    assert base.stages[2].windows == ((24, 32), (32, 40), (40, 48))
    assert [stage.stride for stage in base.stages] == [1, 2, 2]
    assert base.entry_widths(0) == (8,)
    assert base.entry_widths(2) == base.stages[1].widths


def test_maps_of_a_few_pixels_are_not_imitated(base: Base) -> None:
    assert base.resolutions == (6, 14, 28)
    assert base.distilled_resolutions == (28,)


def test_drawn_sub_stages_are_of_every_window_and_inside_their_stage(base: Base) -> None:
    wide = replace(base, resolutions=(28, 32))
    for s, block in np.ndindex(3, len(TYPES)):
        stage = wide.stage(s, TYPES[block])
        parts = draw_sub_stages(wide, s, TYPES[block], 10, rng=np.random.default_rng(0))
        counted = Counter((part.window, part.resolution) for part in parts)
        assert counted == {(w, r): 5 for w in range(3) for r in (28, 32)}
        for part in parts:
            assert {sizes.width for sizes in part.blocks} <= set(wide.stages[s].windows[part.window])
            assert len({sizes.width for sizes in part.blocks}) == 1
            assert len(part.blocks) in stage.depths
            assert {sizes.kernel for sizes in part.blocks} <= set(stage.kernels)
            assert part.in_width in wide.entry_widths(s)


def test_stages_and_ends_are_the_layers_of_whole_networks(base: Base) -> None:
    """So that the seconds of parts add up to those of networks."""
    family = base.space("tiny", np.array([1, 0, 2, 0, 1, 0], np.int16)).family(in_channels=1, classes=10)
    space = family.space()
    formats = [i for i, choice in enumerate(space.choices) if choice.kind == "precision"]
    genomes = space.sample(20, rng=np.random.default_rng(0))
    genomes[:, formats] = family.formats.index("int8")
    genomes[:, space.columns["resolution"]] = base.resolutions.index(28)
    genomes[:, space.columns["s2.width"]] = 0  # as narrow as the ends are measured for
    for genome in genomes:
        candidate = space.candidate(genome)
        arch, expected = family.arch(candidate), Counter(family.workload(candidate).layers)
        parts, width = Counter[object](), base.stem_width
        for s, blocks in enumerate(arch.stages):
            out = int(arch.options[f"s{s}.width"])
            sizes = [Sizes(out, middle_channels(out, b.get("expand", 100)), b["kernel"]) for b in blocks]
            part = SubStage(s, family.stages[s].block, 0, 28, width, tuple(sizes))
            parts.update(stage_workload(base, part, "int8", source_format="int8").layers)
            width = out
        for work in ends_workloads(base, 28, in_channels=1, classes=10, fmt="int8"):
            parts.update(work.layers)
        assert parts == expected


def test_elastic_widths_of_a_teacher_are_among_those_to_choose_from() -> None:
    family = load_family("cifar-pooled", in_channels=3, classes=10)
    base = base_of(family, TYPES)
    assert base.stages[1].widths == (32, 48, 64, 80, 96, 112, 128, 144, 160)
    assert len(base.stages[1].windows) == 8
    assert (base.stem_width, base.stem_stride, base.head_width) == (32, 1, 256)


@pytest.mark.parametrize(
    "name", ["digits-mbconv", "cifar-mbconv", "digits-staged", "cifar-pooled", "cifar-resnet8"]
)
def test_a_base_has_the_maps_and_widths_of_its_teacher(name: str) -> None:
    family = load_family(name, in_channels=3, classes=10)
    base = base_of(family, TYPES)
    work = family.workload(family.extreme("largest"))
    parts = [name.partition(".")[0] for name in work.names]
    shapes = {part: layer.outputs[0].shape[1:] for part, layer in zip(parts, work.layers, strict=True)}
    assert base.resolutions[-1] == family.resolution(family.extreme("largest"))
    resolution = base.resolutions[-1]
    assert shapes["stem"] == (base.stem_width, *(base.entry_size(resolution, 0),) * 2)
    for s, stage in enumerate(base.stages):
        channels, *sizes = shapes[f"s{s}"]
        assert sizes == [base.entry_size(resolution, s + 1)] * 2
        assert channels in stage.widths
        blocks = {name.split(".")[1] for name in work.names if name.startswith(f"s{s}.")}
        assert stage.depths[-1] == len(blocks)
    assert f"s{len(base.stages)}" not in shapes


@pytest.mark.parametrize("name", ["ofa-resnet50", "ofa-proxyless", "apq-proxyless"])
def test_other_families_are_refused(name: str) -> None:
    with pytest.raises(TrilobitError, match=rf"'{name}' cannot be distilled .*--teacher"):
        base_of(load_family(name, in_channels=3, classes=10), TYPES)


@pytest.mark.parametrize("types", [["inverted", "inverted"], ["swin"], []])
def test_types_are_known_and_named_once(types: list[str]) -> None:
    with pytest.raises(
        TrilobitError, match="write some of inverted, fused, basic, pooled, fused-relu, bottleneck"
    ):
        base_of(load_family("digits-mbconv", in_channels=1, classes=10), types)

"""Staged families: block types, width windows, and the files that hold them."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.workload import Workload
from predictors.table import compile_peak
from supernet.families.family import load_family
from supernet.families.staged import BLOCKS, Stage, StagedFamily, digits_staged
from supernet.families.staged_file import StagedSpace, load_space, save_space

FORMATS = ("fp32", "int8", "int4")


@pytest.fixture(scope="module")
def family() -> StagedFamily:
    return digits_staged(in_channels=1, classes=10, formats=FORMATS)


def space(**changes: Any) -> StagedSpace:
    stages = (
        Stage("bottleneck", (8, 16), 1, (1, 2), (3,), (50, 100)),
        Stage("separable", (16, 24), 2, (1, 2), (3, 5)),
    )
    return replace(StagedSpace("tiny", (14,), 8, 2, 32, stages), **changes)


def test_cost_terms_hold_the_layers_of_every_workload(family: StagedFamily) -> None:
    found, terms = family.space(), family.terms()
    genomes = [
        *(c.genes for c in family.extremes().values()),
        *found.sample(60, rng=np.random.default_rng(0)),
    ]
    for genome in genomes:
        candidate = found.candidate(np.asarray(genome, np.int16))
        layers = [layer for term in terms for layer in term.at(candidate.genes)]
        assert Counter(layers) == Counter(family.workload(candidate).layers)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """Any block type, windows, depths and strides."""
    width = 8 * draw(st.integers(1, 3))
    return Stage(
        draw(st.sampled_from(sorted(BLOCKS))),
        draw(st.sampled_from([(width,), (width, width + 8)])),
        draw(st.integers(1, 2)),
        draw(st.sampled_from([(1,), (2,), (1, 3)])),
        draw(st.sampled_from([(3,), (3, 5)])),
        draw(st.sampled_from([(100,), (50, 200)])),
    )


@settings(max_examples=15)
@given(
    found=st.lists(stages(), min_size=1, max_size=3), seed=st.integers(0, 1000), stem_stride=st.integers(1, 2)
)
def test_terms_are_right_for_any_stages(found: list[Stage], seed: int, stem_stride: int) -> None:
    built = space(stages=tuple(found), resolutions=(7, 12), stem_stride=stem_stride)
    any_family = built.family(in_channels=3, classes=5, formats=FORMATS)
    searched = any_family.space()
    genomes = searched.sample(8, rng=np.random.default_rng(seed))
    peaks = compile_peak(searched, any_family.peak_terms())(genomes)
    terms = any_family.terms()
    for genome, peak in zip(genomes, peaks, strict=True):
        candidate = searched.candidate(genome)
        work = any_family.workload(candidate)
        layers = [layer for term in terms for layer in term.at(candidate.genes)]
        assert Counter(layers) == Counter(work.layers)
        assert peak == peak_bytes(work)


def test_all_formats_fit_into_tables(family: StagedFamily) -> None:
    several = digits_staged(in_channels=1, classes=10, formats=("fp32", "int8", "int6", "int4", "int2"))
    options = [len(choice.options) for choice in several.space().choices]
    columns = [term.columns for term in several.terms()] + [term.columns for term in several.peak_terms()]
    longest = max(int(np.prod([options[column] for column in each])) for each in columns)
    assert longest < 2**20


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_a_block_is_its_chain_of_convolutions(block: str) -> None:
    """Multiply-adds by hand, of two blocks on an 8x8 map of 8 channels that the first halves."""
    percents = (200,) if BLOCKS[block].expands else (100,)
    one = space(stages=(Stage(block, (16,), 2, (2,), (3,), percents),), resolutions=(16,))
    work = one.family(in_channels=1, classes=10).workload(
        one.family(in_channels=1, classes=10).extremes()["largest/fp32"]
    )
    expected = {
        "inverted": 64 * 8 * 32 + 16 * 9 * 32 + 16 * 32 * 16 + 16 * (16 * 32 + 9 * 32 + 32 * 16),
        "fused": 16 * (9 * 8 * 32 + 32 * 16) + 16 * (9 * 16 * 32 + 32 * 16),
        "basic": 16 * (9 * 8 * 32 + 9 * 32 * 16) + 16 * (9 * 16 * 32 + 9 * 32 * 16),
        "pooled": 64 * 9 * 8 * 32 + 16 * 9 * 32 * 16 + 16 * (9 * 16 * 32 + 9 * 32 * 16),
        "fused-relu": 16 * (9 * 8 * 32 + 32 * 16) + 16 * (9 * 16 * 32 + 32 * 16),
        "bottleneck": 64 * 8 * 32 + 16 * (9 * 32 * 32 + 32 * 16) + 16 * (16 * 32 + 9 * 32 * 32 + 32 * 16),
        "separable": 16 * (9 * 8 + 8 * 16 + 9 * 16 + 16 * 16) + 16 * (9 * 16 + 16 * 16) * 2,
    }[block]
    ends = 64 * 9 * 8 + 16 * 16 * 32 + 32 * 10
    assert sum(map(macs, work.layers)) == expected + ends


def named(work: Workload, end: str) -> list[str]:
    return [
        layer.nonlinearity for name, layer in zip(work.names, work.layers, strict=True) if name.endswith(end)
    ]


def test_an_activation_follows_the_sum_or_where_there_is_none_the_last_convolution() -> None:
    family = space().family(in_channels=1, classes=10)
    work = family.workload(family.extremes()["largest/int8"])
    assert named(work, "s0.b0.restore") == ["relu"]
    assert named(work, "s0.b1.restore") == ["none"]
    assert named(work, "s0.b1.add") == ["relu"]


def test_blocks_with_a_sum_start_as_its_shortcut() -> None:
    family = space().family(in_channels=1, classes=10)
    net = family.supernet(rng=np.random.default_rng(0)).train()
    searched, candidate = family.space(), family.extremes()["largest/fp32"]
    genes = np.array(candidate.genes, np.int16)
    genes[[searched.columns[name] for name in searched.columns if name.endswith(".depth")]] = 0
    largest, shallow = (family.arch(one) for one in (candidate, searched.candidate(genes)))
    x = torch.randn(4, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x, largest), net(x, shallow))


# -- files -----------------------------------------------------------------------------------------


def test_a_saved_space_is_the_same_space_again(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    save_space(path, space(), {"device": "none"})
    assert load_space(path) == space()
    family = load_family(str(path), in_channels=3, classes=7, formats=FORMATS)
    expected = space().family(in_channels=3, classes=7, formats=FORMATS)
    assert family.space().fingerprint == expected.space().fingerprint
    assert json.loads(path.read_text())["origin"] == {"device": "none"}


def test_spaces_that_differ_in_anything_have_other_fingerprints() -> None:
    wide = (Stage("fused", (8, 16), 1, (1, 2), (3,), (50, 100)), space().stages[1])
    spaces = [space(), space(stem_width=16), space(head_width=64), space(stages=wide), space(stem_stride=1)]
    found = {one.family(in_channels=1, classes=10).space().fingerprint for one in spaces}
    assert len(found) == len(spaces)


def broken(tmp_path: Path, change: dict[str, Any], *, stage: dict[str, Any] | None = None) -> str:
    path = tmp_path / "broken.json"
    save_space(path, space(), {})
    document = {**json.loads(path.read_text()), **change}
    if stage is not None:
        document["stages"][0] |= stage
    path.write_text(json.dumps(document))
    with pytest.raises(TrilobitError, match=r"broken\.json") as caught:
        load_family(str(path), in_channels=1, classes=10)
    return str(caught.value)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"block": "transformer"}, "unknown block type 'transformer'; known: bottleneck|inverted, fused"),
        ({"widths": [16, 8]}, "widths must be whole numbers from 1 to 10000, ascending"),
        ({"widths": []}, "widths must be"),
        ({"widths": 8}, "stages[0].widths: expected a list, got 8"),
        ({"widths": [8, 10**9]}, "widths must be whole numbers from 1 to 10000"),
        ({"depths": [10**9]}, "depths must be whole numbers from 1 to 100"),
        ({"kernels": [2]}, "kernels must be odd"),
        ({"depths": [0, 1]}, "depths must be"),
        ({"stride": "two"}, 'stages[0].stride: expected an integer, got "two"'),
        ({"colour": 3}, 'unknown field "colour"; there are block, widths'),
    ],
)
def test_a_bad_stage_is_named(tmp_path: Path, stage: dict[str, Any], said: str) -> None:
    message = broken(tmp_path, {}, stage=stage)
    assert any(part in message for part in said.split("|"))
    assert "stages[0]" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "space/9"}, "space/1"),
        ({"stages": []}, "at least one stage"),
        ({"stages": ["inverted"]}, 'stages[0]: expected an object, got "inverted"'),
        ({"stages": 3}, "stages: expected a list, got 3; not a space"),
        ({"resolutions": [14.5]}, "resolutions[0]: expected an integer, got 14.5"),
        ({"resolutions": [10**6]}, "resolutions must be whole numbers from 1 to 4096"),
        ({"head": 3}, 'unknown field "head"'),
        ({"title": ""}, "title"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    assert said in broken(tmp_path, change)


def test_a_missing_file_and_a_missing_field_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"none\.json: no such file"):
        load_family(str(tmp_path / "none.json"), in_channels=1, classes=10)
    path = tmp_path / "tiny.json"
    save_space(path, space(), {})
    document = json.loads(path.read_text())
    del document["stages"]
    path.write_text(json.dumps(document))
    with pytest.raises(TrilobitError, match="stages: missing"):
        load_space(path)

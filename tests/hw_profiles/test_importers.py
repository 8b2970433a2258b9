"""Published tables: small made-up ones of every form, what is refused, and the real ones where they are."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import Layer, changed, map_layer
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.profiles.published_tables import (
    BIT_FUSION,
    ONCE_FOR_ALL,
    PROXYLESS,
    Entry,
    PublishedTable,
    area,
    import_table,
    merged,
    read_table,
)
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from tests.published_data import DataFile

STEM, BLOCK = "Conv-input:32x32x3-output:16x16x8", "expanded_conv-input:16x16x8-output:8x8x16"
OPTIONS = "-expand:24-kernel:5-stride:2-idskip:0-se:1-hs:1"
LOGITS = "Logits-input:1x1x64-output:10"
TABLE = {
    "32": {
        STEM: {"mean": 1.5, "std": 0.1, "count": 10},
        BLOCK + OPTIONS: {"mean": 4.0, "std": 0.2, "count": 5},
        "expanded_conv-input:16x16x8-output:16x16x8-expand:8-kernel:3-stride:1-idskip:1-se:0-hs:0": {
            "mean": 2,
            "count": 1,
        },
        "Conv_1-input:1x1x16-output:1x1x64": {"mean": 0.3, "std": 0.0, "count": 4},
        "AvgPool2D-input:8x8x64-output:1x1x64": {"mean": 0.1, "std": 0.0, "count": 4},
        LOGITS: {"mean": 0.5, "std": 0.1, "count": 10},
    },
    "64": {
        "expanded_conv-input:32x32x8-output:16x16x16" + OPTIONS: {"mean": 16.0, "std": 0.4, "count": 5},
        LOGITS: {"mean": 0.8, "std": 0.2, "count": 20},
    },
}
SQUEEZED = map_layer(
    "mbconv", (8, 16, 16), 16, 5, 2, activation="hswish", expanded=24, squeeze=True, residual=False
)
ROW = [8.0, 16, 7, 3, 2, 1, 1, 4, 6, 0.25, 0.5]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table in the form of its content."""

    def write(content: Any, name: str = "made-up.json") -> Path:
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.savez(path, rows=content, head=np.array([1.0, 2.0]))
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


# -- what is read --------------------------------------------------------


def test_reads_blocks_stem_and_head_of_once_for_all(table: Callable[..., Path]) -> None:
    read = read_table(table(TABLE))
    assert (read.name, read.source) == ("made-up", ONCE_FOR_ALL)
    assert read.entries[SQUEEZED] == Entry(4e-3, 0.2e-3, 5)
    assert {layer.key() for layer in read.entries} == {
        "stem 3x32x32>8 k3s2g1 hswish w=fp32 a=fp32",
        "mbconv 8x16x16>16 k5s2g1 hswish w=fp32 a=fp32 e24+se",
        "mbconv 8x32x32>16 k5s2g1 hswish w=fp32 a=fp32 e24+se",
        "mbconv 8x16x16>8 k3s1g1 relu w=fp32 a=fp32 e8+id",
        "conv 16x1x1>64 k1s1g1 hswish w=fp32 a=fp32",
        "pool 64x8x8>64 k1s1g1 none w=fp32 a=fp32",
        "linear 64x1x1>10 k1s1g1 none w=fp32 a=fp32",
    }


def test_a_unit_measured_at_several_resolutions_has_the_mean_of_all_or_that_of_one(
    table: Callable[..., Path],
) -> None:
    linear, path = map_layer("linear", (64, 1, 1), 10), table(TABLE)
    assert read_table(path).entries[linear].latency_s == pytest.approx((10 * 0.5 + 20 * 0.8) / 30 * 1e-3)
    assert read_table(path, resolution=32).entries[linear].latency_s == 0.5e-3
    assert read_table(path, resolution=64).entries[linear].latency_s == 0.8e-3


def test_reads_proxyless_blocks_by_ratio(table: Callable[..., Path]) -> None:
    document = {
        BLOCK + "-expand:6-kernel:7-stride:2-idskip:0": {"mean": 3.0, "var": 0.04, "count": 9},
        "Logits-input:7x7x64-output:10": {"mean": 0.3, "var": 0.01, "count": 9},
    }
    read = read_table(table(document))
    block = map_layer("mbconv", (8, 16, 16), 16, 7, 2, activation="relu6", expanded=48)
    assert read.source == PROXYLESS
    assert read.entries[block] == Entry(3e-3, pytest.approx(0.2e-3), 9)
    assert map_layer("linear", (64, 7, 7), 10) in read.entries


def test_reads_rows_of_the_simulator_with_energy_and_constants(table: Callable[..., Path]) -> None:
    read = read_table(table(np.array([ROW]), "bits.npz"))
    layer = map_layer("conv", (8, 7, 7), 16, 3, 2, 1, "none", "int4", "int6")
    assert read.source == BIT_FUSION
    assert read.entries == {layer: Entry(0.25e-3, energy_j=0.5e-3)}
    assert read.constants == {"head": Entry(1e-3, energy_j=2e-3)}
    assert read.find(replace(layer, activation="relu6")).latency_s == 0.25e-3


def test_an_imported_profile_is_saved_and_replayed(table: Callable[..., Path], tmp_path: Path) -> None:
    profile = import_table(table(np.array([ROW]), "bits.npz"))
    save_profile(profile, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == profile
    [layer] = profile.table
    assert (profile.cost_s(layer), profile.energy_j(layer)) == (0.25e-3, 0.5e-3)
    assert (profile.device.name, profile.device.engine) == ("bits", "published table")
    assert profile.calibration is None
    assert RecordedDevice(profile=tmp_path / "profile.json").supports(layer)


def test_several_figures_become_one_weighted_by_count() -> None:
    assert merged([Entry(1.0, 0.1, 1, 4.0), Entry(2.0, 0.3, 3, 8.0)]) == Entry(
        1.75, pytest.approx(math.sqrt((0.01 + 3 * 0.09) / 4)), 4, 7.0
    )
    assert merged([Entry(1.0, 0.1, 1, 4.0), Entry(2.0)]) == Entry(1.5, None, 2, None)


# -- what is refused -----------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"32": {STEM: {"mean": 1.5, "std": 0.1, "count": 10} | changes}}


def of_key(key: str) -> dict[str, Any]:
    return {"32": {key: {"mean": 1.0, "std": 0.1, "count": 1}}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (entry(mean=-1.0), f"entry '{STEM}': mean is -1.0; it must be a finite number above 0"),
        (entry(mean=math.nan), f"entry '{STEM}': mean is nan; it must be a finite number above 0"),
        (entry(mean=math.inf), f"entry '{STEM}': mean is inf; it must be a finite number above 0"),
        (entry(mean="1.5"), f"entry '{STEM}': mean is '1.5'; it must be a finite number above 0"),
        (entry(mean=None), f"entry '{STEM}': mean is None; it must be a finite number above 0"),
        (entry(mean=10**400), "it must be a finite number above 0"),
        (entry(mean=True), f"entry '{STEM}': mean is True; it must be a finite number above 0"),
        (entry(count=0), f"entry '{STEM}': count is 0; it must be a finite number above 0"),
        (entry(count=1.5), f"entry '{STEM}': count is 1.5; it must be a whole number"),
        (entry(std=-0.1), f"entry '{STEM}': std is -0.1; it must be a finite number of at least 0"),
        (entry(median=1.0), "it must be mean, count, and std or var"),
        ({"32": {STEM: 1.5}}, f"entry '{STEM}' is 1.5; it must be mean, count, and std or var"),
        ({"32": {STEM: {"mean": 1.5}}}, "it must be mean, count, and std or var"),
        ({"32": {}}, "resolution 32 holds no entries"),
        ({"32": TABLE["32"], "64": {}}, "resolution 64 holds no entries"),
        (
            of_key("Dense-input:1x1x8-output:10"),
            "unknown entry 'Dense-input:1x1x8-output:10'; known: Conv, exp",
        ),
        (of_key(BLOCK), f"unknown entry '{BLOCK}'; known: Conv, expanded_conv, Conv_1"),
        (of_key(STEM + OPTIONS), f"unknown entry '{STEM}{OPTIONS}'"),
        (of_key(BLOCK + OPTIONS[:-10]), "unknown entry"),
        (
            of_key("Conv-input:32x32x3-output:0x0x8"),
            "entry 'Conv-input:32x32x3-output:0x0x8' has a size of 0",
        ),
        (of_key(BLOCK.replace("8x8x16", "9x9x16") + OPTIONS), "says 9x9, but its stride gives (8, 8)"),
        ({"a": 1}, "unknown entry 'a'; known: Conv"),
        ({}, "not a published table; known: once-for-all"),
        ([], "not a published table; known: once-for-all"),
        ("", "not a published table; known: once-for-all"),
        ('{"32": {', "not a published table; known: once-for-all"),
    ],
)
def test_a_bad_table_is_refused_by_the_entry(document: Any, message: str, table: Callable[..., Path]) -> None:
    path = table(document)
    with pytest.raises(TrilobitError) as error:
        import_table(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (9, math.nan, "row 1: latency ms is nan; it must be a finite number above 0"),
        (9, 0.0, "row 1: latency ms is 0.0; it must be a finite number above 0"),
        (10, -1.0, "row 1: energy mJ is -1.0; it must be a finite number above 0"),
        (10, math.inf, "row 1: energy mJ is inf; it must be a finite number above 0"),
        (0, 0.0, "row 1: in channels is 0.0; it must be a finite number above 0"),
        (5, 0.0, "row 1 is no unit: [8.0, 16.0, 7.0, 3.0, 2.0, 0.0, 1.0, 4.0, 6.0]; sizes are whole numbers"),
        (6, 3.0, "groups 1 or the input channels"),
        (1, 16.5, "row 1 is no unit"),
    ],
)
def test_a_bad_row_is_refused_by_its_number(
    column: int, value: float, message: str, table: Callable[..., Path]
) -> None:
    rows = np.array([ROW, ROW])
    rows[1, column] = value
    with pytest.raises(TrilobitError) as error:
        import_table(table(rows, "bits.npz"))
    assert message in str(error.value)


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bits.npz"
    np.savez(path, rows=np.ones((2, 3)))
    with pytest.raises(
        TrilobitError, match="no array `rows` of 11 columns: in channels, out channels, in size"
    ):
        import_table(path)
    np.savez(path, rows=np.array([ROW]), other=np.ones(5))
    with pytest.raises(
        TrilobitError, match=r"unknown array 'other'; a constant is \[milliseconds, millijoules\]"
    ):
        import_table(path)
    np.savez(path, rows=np.array([[object()]], dtype=object), allow_pickle=True)
    with pytest.raises(TrilobitError, match="not a readable file of arrays"):
        import_table(path)
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(TrilobitError, match="not a readable file of arrays"):
        import_table(path)


def test_a_missing_file_or_resolution_is_refused(table: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"nowhere\.json: cannot be read \(No such file or directory\)"):
        import_table(tmp_path / "nowhere.json")
    with pytest.raises(TrilobitError, match="resolution 48 is not in the table; it has 32, 64"):
        import_table(table(TABLE), resolution=48)
    with pytest.raises(TrilobitError, match="a Bit Fusion table is of one resolution; leave out 48"):
        import_table(table(np.array([ROW]), "bits.npz"), resolution=48)


# -- between sizes -------------------------------------------------------


def curve(latencies_s: list[float]) -> PublishedTable:
    """One pointwise convolution at maps of 4, 8, 12... positions a side, in joules as in seconds."""
    layers = [map_layer("conv", (8, 4 * i, 4 * i), 16) for i in range(1, len(latencies_s) + 1)]
    entries = {
        layer: Entry(value, energy_j=2 * value) for layer, value in zip(layers, latencies_s, strict=True)
    }
    return PublishedTable("curve", "made up", entries)


LATENCIES = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=6)


@given(LATENCIES)
def test_what_was_measured_is_given_exactly(latencies_s: list[float]) -> None:
    table = curve(latencies_s)
    for layer, value in table.entries.items():
        answer = table.find(layer)
        assert (answer.how, answer.latency_s, answer.energy_j) == (
            "measured",
            value.latency_s,
            value.energy_j,
        )


@given(LATENCIES, st.data())
def test_between_two_sizes_it_is_monotone_and_between_their_figures(
    latencies_s: list[float], data: st.DataObject
) -> None:
    table, step = curve(latencies_s), data.draw(st.integers(1, len(latencies_s) - 1))
    sizes = range(4 * step, 4 * step + 5)
    found = [table.find(map_layer("conv", (8, size, size), 16)) for size in sizes]
    times = np.array([answer.latency_s for answer in found])
    assert [answer.how for answer in found] == ["measured", *["interpolated"] * 3, "measured"]
    assert (np.diff(times) * np.sign(times[-1] - times[0]) >= 0).all()
    np.testing.assert_allclose([answer.energy_j for answer in found], 2 * times, rtol=1e-12)


def test_it_is_linear_in_the_area_of_the_map() -> None:
    answer = curve([1.0, 2.0]).find(map_layer("conv", (8, 6, 6), 16))
    assert answer.latency_s == pytest.approx(1 + (36 - 16) / (64 - 16))


def test_outside_of_what_was_measured_it_says_what_was() -> None:
    table = curve([1.0, 2.0])
    assert table.find(map_layer("conv", (8, 9, 9), 16)).reason == (
        "measured for maps of 16 to 64 positions, not of 81"
    )
    assert (
        table.find(map_layer("conv", (8, 4, 4), 17)).reason == "no such unit in the table, which has 1 conv"
    )
    assert curve([1.0]).find(map_layer("conv", (8, 5, 5), 16)).reason == (
        "measured for maps of 16 positions, not of 25"
    )
    assert math.isnan(table.find(map_layer("conv", (8, 9, 9), 16)).latency_s)


def test_a_vector_is_no_small_map() -> None:
    table = curve([1.0, 2.0])
    assert table.find(map_layer("conv", (8, 1, 1), 16)).how == "missing"
    assert area(map_layer("pool", (8, 5, 4), 8)) == 20


def test_coverage_is_one_line() -> None:
    layers = [map_layer("conv", (8, size, size), 16) for size in (4, 5, 8, 9)]
    coverage = curve([1.0, 2.0]).coverage([*layers, layers[0]])
    assert coverage.covered == (layers[0], layers[2])
    assert coverage.interpolated == (layers[1],)
    assert set(coverage.missing) == {layers[3]}
    assert str(coverage) == (
        "curve: 2 of 4 units in the table, 1 interpolated, 1 missing; first missing: "
        "conv 8x9x9>16 k1s1g1 none w=fp32 a=fp32: measured for maps of 16 to 64 positions, not of 81"
    )
    assert (
        str(curve([1.0]).coverage([layers[0]]))
        == "curve: 1 of 1 units in the table, 0 interpolated, 0 missing"
    )


# -- the published files -------------------------------------------------


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("note10_latency_lut.json", 450),
        ("proxyless_mobile_trim_lut.json", 72),
        ("apq_bitfusion_b1_lut.npz", 6567),
    ],
)
def test_every_published_entry_is_read(name: str, units: int, data_file: DataFile) -> None:
    assert len(import_table(data_file(f"ofa/{name}")).table) == units


def test_a_block_counts_all_its_convolutions() -> None:
    block = map_layer("mbconv", (16, 8, 8), 24, 3, 2, expanded=64, squeeze=True, residual=False)
    assert macs(block) == 64 * 16 * 64 + 16 * 9 * 64 + 2 * 64 * 16 + 16 * 64 * 24
    assert params(block) == 64 * 17 + 64 * 10 + 16 * 65 + 64 * 17 + 24 * 65
    plain = changed(block, expanded=16, squeeze=False)
    assert macs(plain) == 16 * 9 * 16 + 16 * 16 * 24  # nothing to expand


def subnet(depths: np.ndarray, kernels: np.ndarray, ratios: np.ndarray) -> list[Layer]:
    """Once-for-all's MobileNetV3 at width 1.0 and 224 pixels."""
    layers = [map_layer("stem", (3, 224, 224), 16, 3, 2)]
    layers.append(map_layer("mbconv", (16, 112, 112), 16, 3, expanded=16, residual=True))
    shape = layers[-1].out_shape
    for stage, (width, stride, squeeze) in enumerate(
        ((24, 2, False), (40, 2, True), (80, 2, False), (112, 1, True), (160, 2, True))
    ):
        for block in range(stage * 4, stage * 4 + depths[stage]):
            kernel, expanded = int(kernels[block]), int(ratios[block]) * shape[0]
            step = stride if block == stage * 4 else 1
            layers.append(map_layer("mbconv", shape, width, kernel, step, expanded=expanded, squeeze=squeeze))
            shape = layers[-1].out_shape
    layers += [map_layer("conv", shape, 960), map_layer("conv", (960, 1, 1), 1280)]
    return [*layers, map_layer("linear", (1280, 1, 1), 1000)]


def normalised_channels(layer: Layer) -> int:
    """Channels with a batch norm, of which folding keeps one number each."""
    expands = layer.expanded != layer.in_shape[0]
    inner = layer.expanded * (1 + expands) if layer.kind == "mbconv" else 0
    return inner + layer.out_channels


def test_macs_and_params_are_those_published_of_1200_networks(data_file: DataFile) -> None:
    with np.load(data_file("subnets/ofa_mbv3_w10.npz"), allow_pickle=False) as file:
        published = {name: file[name] for name in file.files}
    for depths, kernels, ratios, wanted_macs, wanted_params in zip(
        *(published[name] for name in ("d", "ks", "e", "macs", "params")), strict=True
    ):
        layers = subnet(depths, kernels, ratios)
        assert sum(map(macs, layers)) == wanted_macs
        unfolded = sum(map(normalised_channels, layers[:-2])) - 1280  # 960 > 1280 has neither norm nor bias
        assert sum(map(params, layers)) + unfolded == wanted_params
